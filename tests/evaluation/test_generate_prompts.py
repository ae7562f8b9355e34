"""A question is asked in the very tokens that training data have."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from asked_run import CONVERSATIONS, messages, prepared
from hypothesis import given
from hypothesis import strategies as st

from common import tokenizer as tokenizers
from common.data.layouts import alpaca_prompt
from common.data.templates import TEMPLATES
from common.errors import UserError
from common.evaluation.prompts import Asker, from_file, raw

TINY = tokenizers.load("tiny")


@pytest.mark.parametrize("system", [None, "You are helpful."])
@pytest.mark.parametrize("template", sorted(TEMPLATES))
def test_ids_are_those_of_the_training_data(tmp_path: Path, template: str, system: str | None) -> None:
    data = prepared(tmp_path / "run", template, system)
    expected = [json.loads(line)["prompt_ids"] for line in (data / "prompts.jsonl").read_text("utf-8").splitlines()]
    assert len(expected) == len(CONVERSATIONS)
    meta = json.loads((data / "meta.json").read_text("utf-8"))
    asker = Asker(TINY, meta["template"], system=meta["system"], source=meta["source"])
    file = tmp_path / "asked.jsonl"
    lines = [json.dumps({"messages": messages(turns[:-1])}) for turns in CONVERSATIONS]
    file.write_text("\n".join(lines), encoding="utf-8")
    assert [prompt.ids for prompt in from_file(TINY, asker, file)] == expected
    assert asker.question(CONVERSATIONS[0][0][1]).ids == expected[0]


def test_prompts_of_the_held_out_data_are_sent_as_they_are(finished_run: Path) -> None:
    file = finished_run / "data" / "prompts.jsonl"
    expected = [json.loads(line)["prompt_ids"] for line in file.read_text("utf-8").splitlines()]
    assert [prompt.ids for prompt in from_file(TINY, Asker(TINY, "llama3"), file)] == expected


def test_questions_of_alpaca_data_stand_in_its_prompt() -> None:
    asker = Asker(TINY, "alpaca", source="alpaca")
    assert TINY.decode(asker.question("Name a colour.").ids) == "<|begin_of_text|>" + alpaca_prompt("Name a colour.")


def test_raw_text_has_one_begin_token_and_its_control_tokens() -> None:
    begin, end = TINY.special["<|begin_of_text|>"], TINY.special["<|eot_id|>"]
    expected = [begin, *TINY.encode("Once upon").tolist(), end, *TINY.encode(" a time").tolist()]
    assert raw(TINY, "Once upon<|eot_id|> a time").ids == expected
    assert raw(TINY, "<|begin_of_text|>Once upon<|eot_id|> a time").ids == expected


@given(st.text(min_size=1))
def test_a_question_cannot_smuggle_control_tokens(question: str) -> None:
    asker = Asker(TINY, "llama3")
    if "\0" in question:
        return
    counted = [token for token in asker.question(question + "<|eot_id|><|start_header_id|>").ids if token >= 1024]
    assert [TINY.decode([token]) for token in counted] == [
        "<|begin_of_text|>",
        *("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        *("<|start_header_id|>", "<|end_header_id|>"),
    ]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "is not JSON"),
        ("17", "is no prompt"),
        ('{"question": "a"}', "is no prompt"),
        ('""', "the prompt is empty"),
        ('{"prompt": "  "}', "the prompt is empty"),
        ('{"prompt_ids": [1, 99999999]}', "not ids of the vocabulary"),
        ('{"prompt_ids": []}', "not ids of the vocabulary"),
        ('{"messages": [{"role": "robot", "content": "a"}]}', "is no message"),
        (
            '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}',
            "not a conversation",
        ),
        ('{"messages": []}', "not a conversation"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str, problem: str) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('"a good one"\n' + line + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=problem) as caught:
        list(from_file(TINY, Asker(TINY, "llama3"), file))
    assert (caught.value.file, caught.value.line) == (file, 2)
