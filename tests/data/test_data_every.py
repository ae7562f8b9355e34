"""Every source, stored in every way, through the commands: the same records arrive, whichever way they came."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
import zstandard
from data_support import CONVERSATIONS, Conversation, command, messages, rows
from local_hub import Hub, serving, variables
from pyarrow import parquet

from common.data.layouts import alpaca_prompt, squad_prompt
from common.tokenizer import load

TINY = load("tiny")
DOCUMENTS = ["One document. It has a number: 12345.", "另一个文档。", 'A "third" one \\ with signs <|eot_id|>']


class Source(NamedTuple):
    """Records as they are published, the turns they become, and what else the command is told."""

    records: list[Any]
    becomes: list[list[tuple[str, str]]]
    options: tuple[str, ...] = ()
    plain: str | None = None  # the same documents as a text file
    wrapped: bool = False  # JSON is {"data": [...]}


def turns(conversation: Conversation) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in messages(conversation)]


def one_round(question: str, answer: str) -> list[tuple[str, str]]:
    return [("user", question), ("assistant", answer)]


def documents(texts: list[str]) -> list[list[tuple[str, str]]]:
    return [[("document", text)] for text in texts]


TASKS = [("Add the numbers.", "1 and 2", "3"), ("说“你好”。", "", "你好\n\t\\"), ("Name a colour.", "", "Blue")]
ROUNDS: list[Conversation] = [conversation for conversation in CONVERSATIONS if conversation[0] is None]
PASSAGE = "Ada built the tower in 1850."
ASKED = [("Who built it?", ["Ada", "Ada B."]), ("When?", ["1850"])]
ARTICLE = {
    "title": "a tower",
    "paragraphs": [
        {
            "context": PASSAGE,
            "qas": [
                {"id": str(n), "question": q, "answers": [{"text": a, "answer_start": 0} for a in answers]}
                for n, (q, answers) in enumerate(ASKED)
            ],
        }
    ],
}

SOURCES = {
    "alpaca": Source(
        [{"instruction": i, "input": x, "output": o} for i, x, o in TASKS],
        [one_round(alpaca_prompt(i, x), o) for i, x, o in TASKS],
    ),
    "alpaca, columns named": Source(
        [{"query": i, "context": x, "reply": o} for i, x, o in TASKS],
        [one_round(alpaca_prompt(i, x), o) for i, x, o in TASKS],
        ("--column", "instruction=query", "--column", "input=context", "--column", "output=reply"),
    ),
    "belle": Source(
        [{"instruction": i, "input": x, "output": o} for i, x, o in TASKS],
        [one_round(i + ("\n" + x if x else ""), o) for i, x, o in TASKS],
        ("--source", "belle"),
    ),
    "contest": Source(
        [{"problem": i, "solution": o} for i, _, o in TASKS],
        [one_round(alpaca_prompt(i), o) for i, _, o in TASKS],
    ),
    "messages": Source([{"messages": messages(c)} for c in CONVERSATIONS], [turns(c) for c in CONVERSATIONS]),
    "sharegpt": Source(
        [{"id": str(n), "conversations": messages(c, "from", "value")} for n, c in enumerate(CONVERSATIONS)],
        [turns(c) for c in CONVERSATIONS],
    ),
    "firefly": Source(
        [{"conversation": [{"human": q, "assistant": a} for q, a in c[1]], "category": "x"} for c in ROUNDS],
        [turns(c) for c in ROUNDS],
    ),
    "squad": Source([ARTICLE], [one_round(squad_prompt(PASSAGE, q), a[0]) for q, a in ASKED], wrapped=True),
    "text": Source([{"text": t} for t in DOCUMENTS], documents(DOCUMENTS), plain="\n\n".join(DOCUMENTS) + "\n"),
    "wikitext": Source(
        [{"text": t} for t in [" = Title = ", *DOCUMENTS]],
        documents(DOCUMENTS),
        ("--source", "wikitext"),
        plain="\n\n".join([" = Title = ", *DOCUMENTS]) + "\n",
    ),
    "lines": Source(
        [{"text": t} for t in DOCUMENTS],
        documents(DOCUMENTS),
        ("--source", "lines"),
        plain="\n".join(DOCUMENTS) + "\n",
    ),
}


def lines(records: list[Any]) -> bytes:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


def array(source: Source) -> bytes:
    whole = {"version": "1.1", "data": source.records} if source.wrapped else source.records
    return json.dumps(whole, indent=2).encode()


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def table(source: Source) -> bytes:
    made = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(source.records), made)
    return made.getvalue()


def arrow(source: Source, path: Path) -> Path:
    made = pa.Table.from_pylist(source.records)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, made.schema) as writer:
        writer.write_table(made)
    return path


def saved(source: Source, path: Path) -> Path:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list(source.records).save_to_disk(str(path))
    return path


def several(source: Source, folder: Path, name: Callable[[int], str]) -> Path:
    """A file a record; the order of their names is that of the records."""
    folder.mkdir()
    for number, record in enumerate(source.records):
        write(folder / name(number), lines([record]))
    return folder


ZSTD = zstandard.ZstdCompressor()
STORED: dict[str, Callable[[Source, Path], Path | str]] = {
    "jsonl": lambda s, p: write(p / "a.jsonl", lines(s.records)),
    "jsonl.gz": lambda s, p: write(p / "a.jsonl.gz", gzip.compress(lines(s.records))),
    "jsonl.zst": lambda s, p: write(p / "a.jsonl.zst", ZSTD.compress(lines(s.records))),
    "json": lambda s, p: write(p / "a.json", array(s)),
    "json.gz": lambda s, p: write(p / "a.json.gz", gzip.compress(array(s))),
    "json.zst": lambda s, p: write(p / "a.json.zst", ZSTD.compress(array(s))),
    "glob": lambda s, p: f"{several(s, p / 'many', lambda n: f'part-{n}.jsonl')}/part-*.jsonl",
    "directory": lambda s, p: several(s, p / "many", lambda n: f"{n}.jsonl"),
    "datasets folder": lambda s, p: saved(s, p / "saved"),
    "parquet": lambda s, p: write(p / "a.parquet", table(s)),
    "arrow": lambda s, p: arrow(s, p / "a.arrow"),
    "txt": lambda s, p: write(p / "a.txt", (s.plain or "").encode()),
    "txt.gz": lambda s, p: write(p / "a.txt.gz", gzip.compress((s.plain or "").encode())),
    "txt.zst": lambda s, p: write(p / "a.txt.zst", ZSTD.compress((s.plain or "").encode())),
}
CASES = [(s, w) for s in SOURCES for w in STORED if SOURCES[s].plain is not None or not w.startswith("txt")]


def expected_text(conversation: list[tuple[str, str]]) -> str:
    """What a row of the template plain says; with llama3 for conversations."""
    if conversation[0][0] == "document":
        return f"<|begin_of_text|>{conversation[0][1]}<|end_of_text|>"
    header = "<|start_header_id|>{}<|end_header_id|>\n\n{}<|eot_id|>"
    return "<|begin_of_text|>" + "".join(header.format(role, text.strip()) for role, text in conversation)


def template(source: Source) -> str:
    return "plain" if source.becomes[0][0][0] == "document" else "llama3"


def check_converted(source: Source, form: str, content: str) -> None:
    if form == "conversation":
        names = {"system": "system", "user": "human", "assistant": "gpt"}
        assert json.loads(content) == [
            {"id": str(n), "conversations": [{"from": names[role], "value": text} for role, text in conversation]}
            for n, conversation in enumerate(source.becomes, 1)
        ]
        return
    made = [json.loads(line) for line in content.splitlines()]
    if form == "messages":
        said = [[(m["role"], m["content"]) for m in record["messages"]] for record in made]
        assert said == source.becomes
    else:
        assert [record["text"] for record in made] == ["\n".join(text for _, text in c) for c in source.becomes]


@pytest.mark.parametrize(("name", "way"), CASES)
def test_every_source_stored_in_every_way(tmp_path: Path, name: str, way: str) -> None:
    source = SOURCES[name]
    given = ("--input", STORED[way](source, tmp_path), *source.options)
    made = ("prepare", *given, "--tokenizer", "tiny", "--template", template(source), "--max-length", 4096)
    assert command(*made, "--output", tmp_path / "out") == 0
    assert [TINY.decode(row["input_ids"]) for row in rows(tmp_path / "out")] == [*map(expected_text, source.becomes)]
    assert command(*made, "--format", "jsonl", "--output", tmp_path / "people") == 0
    said = [json.loads(line) for line in (tmp_path / "people" / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    assert ["".join(part["text"] for part in row["parts"]) for row in said] == [*map(expected_text, source.becomes)]
    for form in ("conversation", "messages", "text"):
        out = tmp_path / form
        status = command("convert", *given, "--format", form, "--output", out)
        if template(source) == "plain" and form != "text":
            assert status == 2 and not out.exists()
        else:
            assert status == 0
            check_converted(source, form, out.read_text(encoding="utf-8"))


EVERY = """
import json, sys
from data_support import command
for words in json.load(sys.stdin):
    status = command(*words)
    assert status == 0, (words, status)
"""


def test_every_source_from_a_hub(tmp_path: Path) -> None:
    hub = Hub()
    names = {name: f"someone/{name.split(',')[0]}-{number}" for number, name in enumerate(SOURCES)}
    hub.repositories = {
        names[name]: {"README.md": b"---\nlicense: mit\n---\n", "data/train-00000-of-00001.parquet": table(source)}
        for name, source in SOURCES.items()
    }
    calls: list[list[str]] = []
    for number, (name, source) in enumerate(SOURCES.items()):
        given = ["--input", names[name], *source.options]
        out = tmp_path / str(number)
        calls.append(["prepare", *given, "--tokenizer", "tiny", "--template", template(source), "--output", str(out)])
        form = "text" if template(source) == "plain" else "conversation"
        calls.append(["convert", *given, "--format", form, "--output", f"{out}.{form}"])
    with serving(hub) as address:
        environment = variables(address, tmp_path / "hub")
        environment["PYTHONPATH"] = f"{Path(__file__).parent}:{environment.get('PYTHONPATH', '')}"
        call = [sys.executable, "-c", EVERY]
        done = subprocess.run(
            call, input=json.dumps(calls), env=environment, capture_output=True, text=True, timeout=300
        )
    assert done.returncode == 0, done.stderr
    for number, source in enumerate(SOURCES.values()):
        out = tmp_path / str(number)
        assert [TINY.decode(row["input_ids"]) for row in rows(out)] == [*map(expected_text, source.becomes)]
        form = "text" if template(source) == "plain" else "conversation"
        check_converted(source, form, Path(f"{out}.{form}").read_text(encoding="utf-8"))
