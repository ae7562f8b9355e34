"""Layouts: every public layout gives the same conversations, read at once or one by one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from data_support import CONVERSATIONS, Conversation, conversations, messages, problem, run, texts, write_jsonl
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from common.data import layouts, parse, records, sources
from common.data.block import Block
from common.data.records import ASSISTANT, SYSTEM, USER


def turns(conversation: Conversation) -> list[tuple[int, str]]:
    codes = {"system": SYSTEM, "user": USER, "assistant": ASSISTANT}
    return [(codes[m["role"]], m["content"]) for m in messages(conversation)]


def both_ways(layout: layouts.Layout, values: list[Any]) -> list[list[tuple[int, str]]]:
    """Parse JSON lines at once and one by one; both must agree."""
    data = "".join(json.dumps(v, ensure_ascii=False) + "\n" for v in values).encode()
    block = Block(Path("x.jsonl"), "lines", data)
    table = parse._read_json(block, layout)
    assert table is not None
    at_once = layout.columns(table)
    assert at_once is not None
    one_by_one = parse._record_by_record(block, layout)
    assert one_by_one.problems == []
    assert records.to_turns(at_once) == records.to_turns(one_by_one.batch)
    assert at_once.source.tolist() == one_by_one.batch.source.tolist()
    return records.to_turns(at_once)


@settings(max_examples=60, deadline=None)
@given(st.lists(conversations, min_size=1, max_size=6))
def test_messages_and_sharegpt_read_at_once_or_one_by_one(many: list[Conversation]) -> None:
    expected = [turns(conversation) for conversation in many]
    assert both_ways(layouts.Messages(), [{"messages": messages(c), "id": 1} for c in many]) == expected
    sharegpt = [{"conversations": messages(c, "from", "value")} for c in many]
    assert both_ways(layouts.ShareGPT(), sharegpt) == expected


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.tuples(texts, texts), min_size=1, max_size=4), min_size=1, max_size=5))
def test_firefly_reads_at_once_or_one_by_one(many: list[list[tuple[str, str]]]) -> None:
    values = [{"conversation": [{"human": q, "assistant": a} for q, a in rounds], "category": "x"} for rounds in many]
    assert both_ways(layouts.Firefly(), values) == [turns((None, rounds)) for rounds in many]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(texts, st.none() | texts, texts), min_size=1, max_size=6), st.booleans())
def test_alpaca_reads_at_once_or_one_by_one(many: list[tuple[str, str | None, str]], wrapped: bool) -> None:
    values = [{"instruction": i, "input": x, "output": o} for i, x, o in many]
    found = both_ways(layouts.Alpaca() if wrapped else layouts.Belle(), values)
    for (instruction, extra, output), made in zip(many, found, strict=True):
        question = instruction + ("\n" + extra if extra else "")
        if wrapped:
            question = layouts.alpaca_prompt(instruction, extra or "")
        assert made == [(USER, question), (ASSISTANT, output)]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=5))
def test_contest_reads_at_once_or_one_by_one(many: list[tuple[str, str]]) -> None:
    found = both_ways(layouts.Contest(), [{"problem": p, "solution": s} for p, s in many])
    assert found == [[(USER, layouts.alpaca_prompt(p)), (ASSISTANT, s)] for p, s in many]


def test_alpacas_prompts() -> None:
    with_input = layouts.alpaca_prompt("Add.", "1 2")
    assert with_input == (
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request."
        "\n\n### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:"
    )
    assert layouts.alpaca_prompt("Add.", " ") != layouts.alpaca_prompt("Add.")
    assert layouts.alpaca_prompt("Add.") == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        "\n\n### Instruction:\nAdd.\n\n### Response:"
    )


def test_an_input_of_white_space_is_an_input() -> None:
    """The public rule: only "" (or no input at all) is empty."""
    for extra in (" ", "\n", "\u3000"):
        found = both_ways(layouts.Alpaca(), [{"instruction": "a", "input": extra, "output": "o"}])
        assert found == [[(USER, layouts.alpaca_prompt("a", extra)), (ASSISTANT, "o")]]
        assert "### Input:" in found[0][0][1]


def test_squad_gives_one_conversation_a_question() -> None:
    article = {
        "title": "T",
        "paragraphs": [
            {
                "context": "The bridge is old.",
                "qas": [
                    {"id": "1", "question": "What is old?", "answers": [{"text": "The bridge"}, {"text": "bridge"}]},
                    {"id": "2", "question": "How old?", "answers": [{"text": "old"}]},
                ],
            }
        ],
    }
    made = layouts.Squad().record(article)
    prompt = (
        "Read the passage and answer the question below.\n\n### Instruction:\nThe bridge is old."
        "\n\n### Input:\nWhat is old?\n\n### Response:"
    )
    assert made[0] == [(USER, prompt), (ASSISTANT, "The bridge")]
    assert len(made) == 2 and made[1][1] == (ASSISTANT, "old")


RECORDS: dict[str, list[Any]] = {
    "alpaca": [{"instruction": "Add.", "input": "1 2", "output": "3"}],
    "contest": [{"problem": "1 + 1", "solution": "2"}],
    "messages": [{"messages": messages(c)} for c in CONVERSATIONS],
    "sharegpt": [{"conversations": messages(c, "from", "value")} for c in CONVERSATIONS],
    "firefly": [{"conversation": [{"human": "a", "assistant": "b"}]}],
    "text": [{"text": "a document"}],
}


@pytest.mark.parametrize("layout", RECORDS)
@pytest.mark.parametrize("form", ["jsonl", "json", "parquet", "arrow"])
def test_the_layout_is_recognised_in_every_form(tmp_path: Path, layout: str, form: str) -> None:
    path = tmp_path / f"a.{form}"
    table = pa.Table.from_pylist(RECORDS[layout])
    if form == "jsonl":
        write_jsonl(path, RECORDS[layout])
    elif form == "json":
        path.write_text(json.dumps(RECORDS[layout], indent=1), encoding="utf-8")
    elif form == "parquet":
        parquet.write_table(table, path)
    else:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    found = sources.probe(path)
    assert found.layout == layout and found.form == form
    assert found.fields == tuple(RECORDS[layout][0])


def test_a_list_of_messages_may_use_other_names(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"messages": [{"from": "human", "content": "a"}]}])
    found = sources.probe(path)
    assert found.names == {"role": "from", "content": "content"}


def test_columns_can_be_named(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"q": "Add.", "a": "3"}])
    found = sources.probe(path, columns={"instruction": "q", "output": "a"})
    assert found.layout == "alpaca"
    made = both_ways(found.make_layout(), [{"q": "Add.", "a": "3"}])
    assert made == [[(USER, layouts.alpaca_prompt("Add.")), (ASSISTANT, "3")]]


def test_an_unknown_layout_says_what_is_known(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"question": "Add.", "answer": "3"}])
    said = str(problem(lambda: sources.probe(path)))
    assert "fields question, answer" in said and "alpaca (instruction, output)" in said and "--column" in said
    said = str(problem(lambda: sources.probe(path, "contest")))
    assert "problem, solution" in said
    assert "did you mean 'messages'" in str(problem(lambda: sources.probe(path, "message")))


def test_wikitext_leaves_headings_out(tmp_path: Path) -> None:
    block = Block(tmp_path, "text", b" \n = Title = \n \n One line .\n \n = = Part = = \n \n Another = line .\n")
    parsed = parse.parse(block, layouts.Wikitext())
    assert [t for turn in records.to_turns(parsed.batch) for _, t in turn] == ["One line .", "Another = line ."]
    assert parsed.blank == 2
    assert parsed.lines()[parsed.batch.source].tolist() == [4, 8]


def test_documents_by_line_or_by_paragraph(tmp_path: Path) -> None:
    block = Block(tmp_path, "text", b"a\nb\n\nc\n")
    for layout, expected in ((layouts.Text(), ["a\nb", "c"]), (layouts.Lines(), ["a", "b", "c"])):
        parsed = parse.parse(block, layout)
        assert parsed.batch.texts.to_pylist() == expected


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_a_later_file_of_other_fields_is_told_with_its_own(tmp_path: Path, form: str) -> None:
    fields = (("instruction", "output"), ("instruction", "Output"))
    for number, (question, answer) in enumerate(fields):
        made = [{question: "a", answer: "b"}]
        path = tmp_path / f"{number}.{form}"
        if form == "jsonl":
            write_jsonl(path, made)
        else:
            parquet.write_table(pa.Table.from_pylist(made), path)
    error = problem(lambda: run(tmp_path, tmp_path / "out"))
    assert (error.problem, error.file, error.line) == ("no field 'output'", tmp_path / f"1.{form}", 1)
    assert error.found == "fields instruction, Output (did you mean 'Output'?)"
