"""Blocks of whole records, cut from the bytes of a file before anything is parsed.

A block is what one worker takes at a time. Its borders depend on the file alone, so that the output
does not depend on the number of workers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from common.data import json_array, tables
from common.data.block import RECORD_BYTES, TOO_LONG, Block
from common.data.files import BLOCK_BYTES, InputFile

# What ends a record
_LINE = re.compile(rb"\n")
_BLANK_LINE = re.compile(rb"\n[ \t\r]*\n")


def read(
    file: InputFile, size: int = BLOCK_BYTES, columns: list[str] | None = None, *, by_line: bool = False
) -> Iterator[Block]:
    """The blocks of `file`; of a table only the named columns; `by_line`: of text every line is a record.

    Raises UserError where the bytes make no records.
    """
    if file.form == "parquet":
        yield from tables.read_parquet(file.path, columns)
    elif file.form == "arrow":
        yield from tables.read_arrow(file.path, columns)
    elif file.form == "json":
        yield from json_array.read(file, size)
    elif file.form == "jsonl":
        yield from _lines(file, size, "lines", _LINE)
    else:
        yield from _lines(file, size, "text", _LINE if by_line else _BLANK_LINE)


def _lines(file: InputFile, size: int, kind: str, end: re.Pattern[bytes]) -> Iterator[Block]:
    """Whole records; `end` matches where one ends. Of a record that is too long only its place is kept."""
    rest: list[bytes] = []
    held = 0
    line = 1
    lost = False  # within a record that is too long
    for block in file.blocks(size):
        if rest and end is _BLANK_LINE:  # it may lie across two reads
            last = rest.pop()
            at = max(last.rfind(b"\n"), 0)
            rest, block, held = [*rest, last[:at]], last[at:] + block, held - len(last) + at
        if lost:
            block = b"".join([*rest, block])
            match = end.search(block)
            cut = match.end() if match else block.rfind(b"\n") % (len(block) + 1)  # all of it where there is none
            line += block.count(b"\n", 0, cut)
            block, rest, held, lost = block[cut:], [], 0, match is None
            if lost:
                rest, held = [block], len(block)
                continue
        cut = _after_last(end, block)
        if cut == 0:
            rest.append(block)
            held += len(block)
            if held > RECORD_BYTES:
                yield Block(file.path, TOO_LONG, b"", line)
                lost = True
            continue
        data = b"".join([*rest, memoryview(block)[:cut]])
        rest = [block[cut:]]
        held = len(block) - cut
        if len(data) > RECORD_BYTES and (first := end.search(data)) and first.start() > RECORD_BYTES:
            yield Block(file.path, TOO_LONG, b"", line)
            line += data.count(b"\n", 0, first.end())
            data = data[first.end() :]
        if data:
            yield Block(file.path, kind, data, line)
        line += data.count(b"\n")
    data = b"".join(rest)
    if data.strip() and not lost:
        yield Block(file.path, kind, data, line)


def _after_last(end: re.Pattern[bytes], block: bytes) -> int:
    """Where the last record that ends in `block` ends, or 0."""
    if end is _LINE:
        return block.rfind(b"\n") + 1
    stop = block.rfind(b"\n")
    while (start := block.rfind(b"\n", 0, max(stop, 0))) >= 0:
        if not block[start + 1 : stop].strip(b" \t\r"):
            return stop + 1
        stop = start
    return 0
