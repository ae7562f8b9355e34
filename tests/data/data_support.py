"""What the data tests share: small inputs of our own in every layout, and prepared rows read back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from common.data.commands import app
from common.data.options import Options
from common.data.prepare import prepare
from common.errors import UserError

IGNORE = -100

# (system or None, [(question, answer), ...])
Conversation = tuple[str | None, list[tuple[str, str]]]

CONVERSATIONS: list[Conversation] = [
    (None, [("What is two and two?", "Four.")]),
    ("Answer in one word.", [("The colour of grass?", "Green"), ("And of the sky?", " Blue\n")]),
    (None, [("计算 12 + 30 等于多少？", "12 + 30 = 42"), ("再加 8？", "50"), ("谢谢", "不客气。")]),
    (None, [("Say <|eot_id|> twice.", "<|eot_id|> <|eot_id|>"), ('A quote: "\\n"', "}{][,")]),
]

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=30)  # "" is malformed
conversations = st.tuples(st.none() | texts, st.lists(st.tuples(texts, texts), min_size=1, max_size=4))


def messages(conversation: Conversation, role: str = "role", content: str = "content") -> list[dict[str, str]]:
    system, rounds = conversation
    names = ("human", "gpt") if role == "from" else ("user", "assistant")
    made = [] if system is None else [{role: "system", content: system}]
    for question, answer in rounds:
        made += [{role: names[0], content: question}, {role: names[1], content: answer}]
    return made


def as_messages(conversation: Conversation) -> dict[str, Any]:
    return {"messages": messages(conversation)}


def write_jsonl(path: Path, records: list[Any]) -> Path:
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), encoding="utf-8")
    return path


def run(input: Path | str, output: Path, **options: Any) -> dict[str, Any]:
    """Prepare with the tiny vocabulary; returns meta.json."""
    given = {"tokenizer": "tiny", "template": "llama3", "max_length": 4096, **options}
    return prepare(Options(input=str(input), output=output, **given))


def rows(folder: Path) -> list[dict[str, list[int]]]:
    """Every row of a prepared data set, read by plain pyarrow."""
    made: list[dict[str, list[int]]] = []
    for file in sorted(folder.glob("data-*.arrow")):
        with pa.memory_map(str(file)) as source:
            made += pa.ipc.open_stream(source).read_all().to_pylist()
    return made


def problem(call: Callable[[], object]) -> UserError:
    """The UserError that `call` raises."""
    try:
        call()
    except UserError as error:
        return error
    raise AssertionError("no error")


def command(*arguments: object) -> int:
    """The exit status of `python -m common.data ARGUMENTS`."""
    from common.cli import call

    def main() -> None:
        app([str(argument) for argument in arguments], standalone_mode=False)

    return call(main)
