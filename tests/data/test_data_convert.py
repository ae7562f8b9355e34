"""`convert`: text from one layout to another, and back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import data_support
import pytest
from data_support import CONVERSATIONS, Conversation, as_messages, command, messages, problem, write_jsonl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.data.convert import convert
from common.data.layouts import alpaca_prompt
from common.environment import ROOT

ALPACA = [
    {"instruction": "Add the numbers.", "input": "1 and 2", "output": "3"},
    {"instruction": "说“你好”。", "input": "", "output": "你好\n\t\\"},
    {"instruction": "Name a colour.", "output": "Blue"},
]


def test_alpaca_becomes_conversations_byte_for_byte(tmp_path: Path) -> None:
    source = tmp_path / "alpaca.json"
    source.write_text(json.dumps(ALPACA), encoding="utf-8")
    convert(str(source), tmp_path / "out.json", "conversation")
    expected = [
        {
            "id": str(number),
            "conversations": [
                {"from": "human", "value": alpaca_prompt(row["instruction"], row.get("input", ""))},
                {"from": "gpt", "value": row["output"]},
            ],
        }
        for number, row in enumerate(ALPACA, 1)
    ]
    assert (tmp_path / "out.json").read_bytes() == json.dumps(expected, ensure_ascii=False, indent=2).encode()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alpaca.json", "out.json"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(many=st.lists(data_support.conversations, min_size=1, max_size=5))
def test_there_and_back_again(tmp_path: Path, many: list[Conversation]) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [as_messages(c) for c in many])
    convert(str(source), tmp_path / "b.json", "conversation")
    made = json.loads((tmp_path / "b.json").read_text(encoding="utf-8"))
    assert [entry["conversations"] for entry in made] == [messages(c, "from", "value") for c in many]
    convert(str(tmp_path / "b.json"), tmp_path / "c.jsonl", "messages")
    assert (tmp_path / "c.jsonl").read_bytes() == source.read_bytes()


SOURCES: dict[str, list[Any]] = {
    "alpaca": ALPACA,
    "belle": [{"instruction": "a", "input": "b", "output": "c"}],
    "contest": [{"problem": "1 + 1", "solution": "2"}],
    "firefly": [{"conversation": [{"human": "a", "assistant": "b"}]}],
    "sharegpt": [{"conversations": messages(c, "from", "value")} for c in CONVERSATIONS],
    "messages": [as_messages(c) for c in CONVERSATIONS],
}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("format", ["conversation", "messages", "text"])
def test_every_source_in_every_format(tmp_path: Path, source: str, format: str) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", SOURCES[source])
    out = tmp_path / "out"
    assert command("convert", "--source", source, "--input", path, "--format", format, "--output", out) == 0
    content = out.read_text(encoding="utf-8")
    made = json.loads(content) if format == "conversation" else [json.loads(line) for line in content.splitlines()]
    assert len(made) == len(SOURCES[source])


def test_documents_are_no_conversations(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": "a document"}])
    assert "--format text" in str(problem(lambda: convert(str(path), tmp_path / "out", "messages")))
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()
    convert(str(path), tmp_path / "out", "text")
    assert (tmp_path / "out").read_bytes() == path.read_bytes()


def test_bad_records_stop_or_are_listed(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [as_messages(CONVERSATIONS[0]), {"messages": []}])
    error = problem(lambda: convert(str(path), tmp_path / "out", "messages"))
    assert error.line == 2 and [p.name for p in tmp_path.iterdir()] == ["a.jsonl"]
    counts = convert(str(path), tmp_path / "out", "messages", on_error="skip")
    assert counts.records == 2 and counts.dropped == {"malformed": 1}
    listed = json.loads((tmp_path / "out.rejects.jsonl").read_text())
    assert listed["line"] == 2 and listed["reason"] == "'messages' is empty"


def test_who_reads_only_the_first_lines_gets_the_whole_output(tmp_path: Path) -> None:
    source, out = write_jsonl(tmp_path / "a.jsonl", [as_messages(c) for c in CONVERSATIONS]), tmp_path / "out"
    read, write = os.pipe()
    os.close(read)
    words = ["convert", "--input", str(source), "--format", "messages", "--output", str(out)]
    done = subprocess.run([sys.executable, "-m", "common.data", *words], stdout=write, stderr=write, cwd=ROOT)
    os.close(write)
    assert done.returncode == 0 and len(out.read_text(encoding="utf-8").splitlines()) == len(CONVERSATIONS)


def test_headings_are_counted_and_no_list_is_promised(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "a.txt", tmp_path / "out.jsonl"
    source.write_text(" = Title = \n\nA paragraph.\n", encoding="utf-8")
    assert command("convert", "--source", "wikitext", "--input", source, "--format", "text", "--output", out) == 0
    assert capsys.readouterr().err.splitlines()[-1] == "  dropped: 1 empty document or heading"
    assert sorted(tmp_path.iterdir()) == [source, out]


def test_what_is_told_has_names_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "[a draft]" / ("of a name that is long " * 5) / "of[" / "red]"
    folder.mkdir(parents=True)
    records = [as_messages(CONVERSATIONS[0]), {"messages": [{"role": "user", "content": "Why?"}]}]
    source, out = write_jsonl(folder / "a.jsonl", records), folder / "out.jsonl"
    assert command("convert", "--input", source, "--format", "messages", "--odd-turns", "drop", "--output", out) == 0
    said = capsys.readouterr()
    assert said.err.splitlines()[-2:] == [
        "  dropped: 1 odd number of turns",
        f"  each by file and line: {out}.rejects.jsonl",
    ]
    assert said.out == f"{out}\n"
    assert command("inspect", source) == 0
    assert f"files:       1, the first {source}\n" in capsys.readouterr().out


def test_two_at_once_do_not_mix(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [as_messages(c) for c in CONVERSATIONS])
    out = tmp_path / "out.jsonl"
    said = []

    def meanwhile(read: int, tokens: int) -> None:
        said.append(problem(lambda: convert(str(source), out, "text")).problem)

    convert(str(source), out, "messages", progress=meanwhile)
    assert said == ["another command is writing this output"]
    assert out.read_bytes() == source.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "out.jsonl"]


def test_the_input_is_never_the_output(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [as_messages(CONVERSATIONS[0])])
    before = path.read_bytes()
    assert "the output is the input" in str(problem(lambda: convert(str(path), path, "messages")))
    assert path.read_bytes() == before
    assert "did you mean 'messages'" in str(problem(lambda: convert(str(path), tmp_path / "b", "message")))


SQUAD = {
    "data": [
        {
            "title": "a tower",
            "paragraphs": [
                {
                    "context": "Ada built the tower in 1850.",
                    "qas": [
                        {"id": "q1", "question": "Who built it?", "answers": [{"text": "Ada"}, {"text": "Ada B."}]},
                        {"id": "q2", "question": "When?", "answers": [{"text": "1850"}]},
                    ],
                },
                {"context": "Ben sold it.", "qas": [{"question": "Who sold it?", "answers": [{"text": "Ben"}]}]},
            ],
        }
    ]
}


def test_questions_become_prompts_with_their_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = tmp_path / "dev.json", tmp_path / "out.jsonl"
    file.write_text(json.dumps(SQUAD), encoding="utf-8")
    call = ["convert", "--source", "squad", "--input", str(file), "--select"]
    assert command(*call, "all", "--output", str(out)) == 0
    assert capsys.readouterr().out == f"{out}\n"
    rows = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert [(row.get("id"), row["label"], row["references"]) for row in rows] == [
        ("q1", "Ada", ["Ada", "Ada B."]),
        ("q2", "1850", ["1850"]),
        (None, "Ben", ["Ben"]),
    ]
    assert rows[1]["prompt"] == (
        "Read the passage and answer the question below.\n\n### Instruction:\nAda built the tower in 1850."
        "\n\n### Input:\nWhen?\n\n### Response:"
    )
    assert command(*call, "first") == 0
    first = capsys.readouterr()
    assert [json.loads(line) for line in first.out.splitlines()] == [rows[0], rows[2]]
    assert first.err.strip() == "2 prompts"


def test_prompts_of_what_is_not_squad(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = write_jsonl(tmp_path / "a.jsonl", ALPACA)
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps(SQUAD).replace('"question": "When?"', '"question": 7'), encoding="utf-8")
    for arguments, said in (
        (["--input", str(other), "--select", "first"], "not of the layout squad"),
        (["--input", str(broken), "--select", "all"], "article 1: 'paragraphs[0].qas[1].question' is not text"),
        (["--input", str(broken), "--select", "some"], "--select has no such choice"),
        (["--input", str(broken), "--select", "all", "--format", "messages"], "no --format"),
        (["--input", str(other)], "--format are missing"),
    ):
        assert command("convert", *arguments) == 2
        printed = capsys.readouterr()
        assert printed.out == "" and said in printed.err
