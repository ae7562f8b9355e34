"""Files of answers and of reference answers, read with errors that name the line.

Standard library only: recipes' environments import this.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError


@dataclass(frozen=True)
class Answered:
    """An answer beside all the reference answers to its question."""

    prediction: str
    references: list[str]
    """The first is the one that metrics with one label use."""


def read(file: Path, fields: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file, each with text in all of `fields`. Raises UserError, also for none."""
    return [row for _, row in _numbered(file, fields)]


def _numbered(file: Path, fields: tuple[str, ...] = ()) -> list[tuple[int, dict[str, Any]]]:
    rows: list[tuple[int, dict[str, Any]]] = []
    for number, line in enumerate(_text(file).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise UserError("is not JSON", file=file, line=number, found=str(error), expected="JSON lines") from None
        if not isinstance(row, dict):
            raise UserError("is not a JSON object", file=file, line=number, found=line[:80])
        for field in fields:
            if not isinstance(row.get(field), str):
                found = f"{field}: {row[field]!r}"[:80] if field in row else "fields " + ", ".join(map(str, row))
                raise UserError(f"has no text {field!r}", file=file, line=number, found=found[:120])
        rows.append((number, row))
    if not rows:
        raise UserError("holds no row", file=file, expected="JSON lines" + (f" of {', '.join(fields)}" * bool(fields)))
    return rows


def answered(predictions: Path, references: Path | None) -> tuple[list[Answered], int]:
    """Every question with its answer, and how many had none: these are answered by nothing.

    Without `references` each row has its own label. With them, rows are told by their ids where they
    have them, else by their order, which is that of all questions or of the first ones of all paragraphs.
    """
    if references is None:
        rows = _numbered(predictions, ("prediction",))
        return [Answered(row["prediction"], _labels(row, predictions, line)) for line, row in rows], 0
    questions = _questions(references)
    said = _predictions(predictions)
    if isinstance(said, list):
        return _in_order(said, questions, predictions, references), 0
    known = {question.id for question in questions}
    strange = next((each for each in said if each not in known), None)
    if strange is not None:
        raise UserError("answers a question that is not in the references", file=predictions, found=f"id {strange}")
    missing = sum(question.id not in said for question in questions)
    return [Answered(said.get(question.id or "", ""), question.answers) for question in questions], missing


@dataclass(frozen=True)
class _Question:
    id: str | None
    answers: list[str]
    first: bool
    """Of its paragraph."""


def _in_order(said: list[str], questions: list[_Question], file: Path, references: Path) -> list[Answered]:
    firsts = [question for question in questions if question.first]
    chosen = next((part for part in (questions, firsts) if len(part) == len(said)), None)
    if chosen is None:
        raise UserError(
            "has another number of answers than there are questions",
            file=file,
            found=f"{len(said)} rows without ids",
            expected=f"{len(questions)} ({references}), or {len(firsts)}, the first of each paragraph",
        )
    return [Answered(each, question.answers) for each, question in zip(said, chosen, strict=True)]


def _predictions(file: Path) -> dict[str, str] | list[str]:
    """Answers by id, or in order where there are no ids; the official script's one object is read, too."""
    try:
        whole = json.loads(_text(file))
    except (json.JSONDecodeError, RecursionError):
        whole = None
    if isinstance(whole, dict) and "prediction" not in whole:
        for key, value in whole.items():
            if not isinstance(value, str):
                raise UserError(f"the answer to {key!r} is not text", file=file, found=repr(value)[:80])
        return whole
    rows = _numbered(file, ("prediction",))
    if not any(row.get("id") for _, row in rows):
        return [row["prediction"] for _, row in rows]
    made: dict[str, str] = {}
    for line, row in rows:
        key = row.get("id")
        if not isinstance(key, str):
            raise UserError("has no id, and other rows have one", file=file, line=line)
        if key in made:
            raise UserError("answers a question again", file=file, line=line, found=f"id {key}")
        made[key] = row["prediction"]
    return made


def _questions(file: Path) -> list[_Question]:
    """The questions of a file in SQuAD's layout, or of JSON lines with answers, references or label."""
    try:
        whole = json.loads(_text(file))
    except (json.JSONDecodeError, RecursionError):
        whole = None
    if isinstance(whole, dict) and "data" in whole:
        try:
            return [
                _Question(str(entry["id"]), [str(answer["text"]) for answer in entry["answers"]], place == 0)
                for article in whole["data"]
                for paragraph in article["paragraphs"]
                for place, entry in enumerate(paragraph["qas"])
            ]
        except (KeyError, TypeError) as error:
            expected = "data, paragraphs, qas, each with id and answers, as dev-v1.1.json has them"
            raise UserError("is not of SQuAD's layout", file=file, found=str(error), expected=expected) from None
    return [
        _Question(row["id"] if isinstance(row.get("id"), str) else None, _labels(row, file, line), True)
        for line, row in _numbered(file)
    ]


def _labels(row: dict[str, Any], file: Path, line: int) -> list[str]:
    for name in ("references", "answers", "label"):
        value = row.get(name)
        if isinstance(value, dict):  # the hub's SQuAD: {"text": [...], "answer_start": [...]}
            value = value.get("text")
        labels = [value] if isinstance(value, str) else value
        if isinstance(labels, list) and labels and all(isinstance(each, str) for each in labels):
            return labels
    found = "fields " + ", ".join(map(str, row))
    raise UserError("has no answer to compare with", file=file, line=line, found=found, expected="label or references")


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError("is not UTF-8", file=file, found=f"byte {error.object[error.start]:#04x}") from None
