"""`convert`: records from one layout to another, as text; no tokenizer is involved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from json.encoder import encode_basestring
from pathlib import Path
from pickle import PickleBuffer
from typing import Any

from common.data import sources
from common.data.block import Block
from common.data.checked import RecordChecker
from common.data.layouts import Turns
from common.data.pipeline import number_of_workers, read_blocks
from common.data.records import ASSISTANT, DOCUMENT, ROLE_NAMES, SYSTEM, USER, to_turns
from common.data.rejects import Counts, Reject, describe, rejects_of, write_rejects
from common.data.workers import in_order
from common.errors import UserError, did_you_mean
from common.files import keep_others_out, remove

FORMATS = ("conversation", "messages", "text")

_MOST_WORKERS = 4  # more would only wait for what writes the file

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
    workers: int = 0,
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
    work = TextWorker(RecordChecker(probe.make_layout(), on_error=on_error, odd_turns=odd_turns, system=system), format)
    counts = Counts()
    rejects = rejects_of(output)
    partial = output.with_name(output.name + ".partial")
    output.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with open(partial, "ab") as file:
        keep_others_out(file.fileno(), partial)
        try:
            file.truncate(0)
            remove(rejects)
            for made in in_order(read_blocks(probe), work, number_of_workers(workers, probe, _MOST_WORKERS)):
                counts.add(made.counts)
                write_rejects(rejects, made.rejects)
                if format == "conversation":
                    file.writelines(
                        b'%b\n  {\n    "id": "%d",%b' % (b"," if number > 1 else b"[", number, text)
                        for number, text in enumerate(made.text.split(b"\0")[:-1], written + 1)
                    )
                else:
                    file.write(made.text)
                written += made.records
                if progress is not None:
                    progress(made.bytes, 0)
            if format == "conversation":
                file.write(b"\n]")
            if not written:
                raise UserError("nothing is left to write", file=probe.files[0], found=describe(counts))
            file.flush()
            partial.replace(output)
        except BaseException:
            partial.unlink(missing_ok=True)
            rejects.unlink(missing_ok=True)
            raise
    return counts


@dataclass
class Texts:
    """The records of one block as they stand in the output; conversations without their number, a NUL after each."""

    text: bytes
    records: int
    counts: Counts
    rejects: list[Reject]
    bytes: int

    def __getstate__(self) -> dict[str, Any]:
        """For another process (pickle's protocol 5)."""
        return {**vars(self), "text": PickleBuffer(self.text)}


class TextWorker:
    """Turns one block into the text of its records."""

    def __init__(self, check: RecordChecker, format: str) -> None:
        self.check = check
        self.format = format

    def __call__(self, block: Block) -> Texts:
        records = self.check(block)
        if self.format != "text" and (records.batch.roles == DOCUMENT).any():
            raise UserError("documents are no conversations", file=block.file, expected="--format text")
        write = {"conversation": _conversation, "messages": _messages, "text": _text}[self.format]
        made = "".join([write(turns) for turns in to_turns(records.batch)])
        return Texts(made.encode(), len(records.batch), records.counts, records.rejects, block.size)


# JSON as json.dumps(..., ensure_ascii=False) writes it; of its encoder only the strings are compiled with indent=2.
def _conversation(turns: Turns) -> str:
    """What follows the id in a record of the list, as with indent=2."""
    said = ",".join(
        f'\n      {{\n        "from": "{_SHAREGPT_ROLES[role]}",\n        "value": {encode_basestring(text)}\n      }}'
        for role, text in turns
    )
    return f'\n    "conversations": [{said}\n    ]\n  }}\0'


def _messages(turns: Turns) -> str:
    said = ", ".join(f'{{"role": "{ROLE_NAMES[role]}", "content": {encode_basestring(text)}}}' for role, text in turns)
    return f'{{"messages": [{said}]}}\n'


def _text(turns: Turns) -> str:
    joined = "\n".join(text for _, text in turns)
    return f'{{"text": {encode_basestring(joined)}}}\n'
