"""`convert`: records from one layout to another, as text; no tokenizer is involved."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from common.data import sources
from common.data.checked import RecordChecker
from common.data.layouts import Turns
from common.data.pipeline import default_workers, in_order, read_blocks
from common.data.records import ASSISTANT, DOCUMENT, ROLE_NAMES, SYSTEM, USER, to_turns
from common.data.rejects import Counts, describe, write_rejects
from common.errors import UserError, did_you_mean
from common.files import remove

FORMATS = ("conversation", "messages", "text")

_SHAREGPT_ROLES = {SYSTEM: "system", USER: "human", ASSISTANT: "gpt"}


def convert(
    input: str,
    output: Path,
    format: str,
    *,
    source: str = "auto",
    columns: Mapping[str, str] | None = None,
    system: str | None = None,
    on_error: str = "stop",
    odd_turns: str = "stop",
    progress: Callable[[int, int], None] | None = None,
) -> Counts:
    """Write the records of `input` to the file `output` in another layout; the file appears whole or not at all.

    conversation: one JSON list as the MindFormers tools read it, ids "1", "2", ..., from and value.
    messages: JSON lines with role and content. text: JSON lines of documents, or of the turns of a
    conversation one below the other. What is left out is listed in OUTPUT.rejects.jsonl.
    """
    if format not in FORMATS:
        hint = did_you_mean(format, FORMATS)
        raise UserError("--format has no such choice", found=format, expected=", ".join(FORMATS), hint=hint)
    probe = sources.probe(sources.local(input), source, columns)
    if output.is_dir():
        raise UserError("the output is a directory", file=output, expected="a file to write")
    if any(output.resolve() == path.resolve() for path in probe.files):
        raise UserError("the output is the input", file=output, hint="choose another output")
    check = RecordChecker(probe.make_layout(), on_error=on_error, odd_turns=odd_turns, system=system)
    counts = Counts()
    rejects = output.with_name(output.name + ".rejects.jsonl")
    partial = output.with_name(output.name + ".partial")
    output.parent.mkdir(parents=True, exist_ok=True)
    remove(rejects)

    def conversations() -> Iterator[Turns]:
        for records in in_order(read_blocks(probe), check, default_workers()):
            counts.add(records.counts)
            write_rejects(rejects, records.rejects)
            yield from to_turns(records.batch)
            if progress is not None:
                progress(len(records.block.data), 0)

    try:
        with open(partial, "w", encoding="utf-8") as file:
            if format == "conversation":
                written = _write_list(file, conversations())
            else:
                written = _write_lines(file, conversations(), format)
        if not written:
            raise UserError("nothing is left to write", file=probe.files[0], found=describe(counts))
        partial.replace(output)
    except BaseException:
        partial.unlink(missing_ok=True)
        rejects.unlink(missing_ok=True)
        raise
    return counts


def _write_list(file: IO[str], conversations: Iterator[Turns]) -> int:
    """The bytes of json.dump(..., ensure_ascii=False, indent=2), one record at a time."""
    count = 0
    for count, turns in enumerate(conversations, 1):
        if turns[0][0] == DOCUMENT:
            raise UserError("documents are no conversations", expected="--format text")
        made = {
            "id": str(count),
            "conversations": [{"from": _SHAREGPT_ROLES[role], "value": text} for role, text in turns],
        }
        body = json.dumps(made, ensure_ascii=False, indent=2).replace("\n", "\n  ")
        file.write(("[\n  " if count == 1 else ",\n  ") + body)
    file.write("\n]" if count else "[]")
    return count


def _write_lines(file: IO[str], conversations: Iterator[Turns], format: str) -> int:
    count = 0
    for turns in conversations:
        count += 1
        made: dict[str, Any]
        if format == "text":
            made = {"text": "\n".join(text for _, text in turns)}
        elif turns[0][0] == DOCUMENT:
            raise UserError("documents are no conversations", expected="--format text")
        else:
            made = {"messages": [{"role": ROLE_NAMES[role], "content": text} for role, text in turns]}
        file.write(json.dumps(made, ensure_ascii=False) + "\n")
    return count
