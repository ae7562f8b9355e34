"""Blocks of whole records, cut from the bytes of a file before anything is parsed.

A block is what one worker takes at a time. Its borders depend on the file alone, so that the output
does not depend on the number of workers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from common.data.files import BLOCK_BYTES, WRAPPED_ARRAY, InputFile
from common.errors import UserError

TABLE_ROWS = 8192

_STRUCTURE = np.zeros(256, dtype=np.bool_)
_STRUCTURE[list(b'"\\{}[],')] = True
_DEPTH = np.zeros(256, dtype=np.int8)
_DEPTH[list(b"{[")] = 1
_DEPTH[list(b"}]")] = -1
_QUOTE, _BACKSLASH, _COMMA = b'"\\,'


@dataclass
class Block:
    """Whole records of one file.

    kind: "lines" (one JSON object a line), "elements" (JSON objects, one after the other), "text"
    (lines of text) or "table". first_line counts the file's lines from 1, first_row its records from 0
    where they are counted before parsing (tables), else it is 0.
    """

    file: Path
    kind: str
    data: bytes
    first_line: int = 1
    first_row: int = 0
    table: pa.RecordBatch | None = None


def read(file: InputFile, size: int = BLOCK_BYTES, columns: list[str] | None = None) -> Iterator[Block]:
    """The blocks of `file`; of a table only the named columns. Raises UserError where the bytes make no records."""
    if file.form == "parquet":
        yield from _parquet(file.path, columns)
    elif file.form == "arrow":
        yield from _arrow(file.path, columns)
    elif file.form == "json":
        yield from _elements(file, size)
    else:
        yield from _lines(file, size, "lines" if file.form == "jsonl" else "text")


def _lines(file: InputFile, size: int, kind: str) -> Iterator[Block]:
    rest: list[bytes] = []
    line = 1
    for block in file.blocks(size):
        cut = block.rfind(b"\n") + 1 if kind == "lines" else _after_blank_line(block)
        if cut == 0:
            rest.append(block)
            continue
        data = b"".join([*rest, block[:cut]])
        rest = [block[cut:]]
        yield Block(file.path, kind, data, line)
        line += data.count(b"\n")
    data = b"".join(rest)
    if data.strip():
        yield Block(file.path, kind, data, line)


def _after_blank_line(block: bytes) -> int:
    """Where the last blank line of `block` ends, or 0: a paragraph is never cut in two."""
    end = block.rfind(b"\n")
    while (start := block.rfind(b"\n", 0, max(end, 0))) >= 0:
        if not block[start:end].strip():
            return end + 1
        end = start
    return 0


def _elements(file: InputFile, size: int) -> Iterator[Block]:
    """The objects of a JSON array, a few megabytes at a time."""
    parts: list[bytes] = []
    pending = 0
    line = 1
    started = False
    first = True
    for block in file.blocks(size):
        parts.append(block)
        pending += len(block)
        # A record larger than a block is scanned again only when as much again has been read.
        if len(parts) > 1 and pending < 2 * len(parts[0]):
            continue
        data = b"".join(parts)
        if not started:
            start = _after_bracket(data)
            if start is None:
                continue
            line += data.count(b"\n", 0, start)
            data = data[start:]
            started = True
        scan = scan_elements(data)
        if scan.end_of_array is not None:
            yield from _whole(file.path, data[: scan.end_of_array], line, scan, first)
            return
        if len(scan.ends):
            end = int(scan.ends[-1])
            yield from _whole(file.path, data[:end], line, scan, first)
            line += data.count(b"\n", 0, end)
            data = data[end:]
            first = False
        parts, pending = [data], len(data)
    data = b"".join(parts)
    if not started:
        start = _after_bracket(data)
        if start is None:
            raise UserError("not a JSON array", file=file.path, found=repr(data[:40]), expected="'['")
        line += data.count(b"\n", 0, start)
        data = data[start:]
    scan = scan_elements(data)
    if scan.end_of_array is None:
        last = line + data.count(b"\n")
        hint = "the file was cut off: fetch or make it again"
        raise UserError("the JSON array has no end", file=file.path, line=last, expected="']'", hint=hint)
    yield from _whole(file.path, data[: scan.end_of_array], line, scan, first)


def _after_bracket(data: bytes) -> int | None:
    """Where the array begins after its opening bracket; None while that has not come."""
    mark = len(data) - len(data.removeprefix(b"\xef\xbb\xbf"))
    if match := WRAPPED_ARRAY.match(data, mark):
        return match.end()
    opened = data[mark:].lstrip()
    return len(data) - len(opened) + 1 if opened.startswith(b"[") else None


@dataclass
class Scan:
    """Where the elements of an array end: ends int64 [elements], commas int64; the closing bracket, if it came."""

    ends: npt.NDArray[np.int64]
    commas: npt.NDArray[np.int64]
    end_of_array: int | None


def scan_elements(data: bytes) -> Scan:
    """Find the ends of the objects at the top of `data`, which begins within a JSON array, outside of any string."""
    raw = np.frombuffer(data, dtype=np.uint8)
    at = np.flatnonzero(_STRUCTURE[raw])
    what = raw[at]
    quote = what == _QUOTE
    slashes = at[what == _BACKSLASH]
    if len(slashes):
        # In a run of backslashes every other one escapes the next character.
        begins = np.concatenate(([True], np.diff(slashes) != 1))
        place = np.arange(len(slashes)) - np.flatnonzero(begins)[np.cumsum(begins) - 1]
        escaped = np.zeros(len(raw) + 1, dtype=np.bool_)
        escaped[slashes[place % 2 == 0] + 1] = True
        quote &= ~escaped[at]
    outside = (np.cumsum(quote) % 2 == 0) & ~quote & (what != _BACKSLASH)
    at, what = at[outside], what[outside]
    change = _DEPTH[what]
    depth = np.cumsum(change, dtype=np.int64)
    closed = np.flatnonzero(depth < 0)
    end_of_array = None
    if len(closed):
        end_of_array = int(at[closed[0]])
        within = slice(0, int(closed[0]))
        at, what, change, depth = at[within], what[within], change[within], depth[within]
    top = depth == 0
    return Scan(at[top & (change < 0)] + 1, at[top & (what == _COMMA)], end_of_array)


def _whole(path: Path, data: bytes, line: int, scan: Scan, first: bool) -> Iterator[Block]:
    """The block of the elements in `data`, with the commas between them blanked."""
    commas = scan.commas[scan.commas < len(data)]
    if not len(scan.ends):
        if data.strip(b" \t\r\n,"):
            found = repr(data.strip()[:40])
            raise UserError("not a record", file=path, line=line, found=found, expected="a JSON object")
        return
    # One comma stands between two elements; a block that is not the first begins with one.
    before = np.searchsorted(commas, scan.ends)
    expected = np.arange(len(scan.ends)) + (not first)
    if len(commas) != expected[-1] or (before != expected).any():
        wrong = int(np.argmax(before != expected))
        where = line + data.count(b"\n", 0, int(scan.ends[wrong]))
        raise UserError("the JSON array is damaged", file=path, line=where, expected="one comma between two records")
    if len(commas):
        raw = np.frombuffer(data, dtype=np.uint8).copy()
        raw[commas] = ord(" ")
        data = raw.tobytes()
    yield Block(path, "elements", data, line)


def _parquet(path: Path, columns: list[str] | None) -> Iterator[Block]:
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path, memory_map=False) as source:
            row = 0
            for table in source.iter_batches(TABLE_ROWS, columns=columns):
                yield Block(path, "table", b"", first_row=row, table=table)
                row += table.num_rows
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise _damaged(path, error) from None


def _arrow(path: Path, columns: list[str] | None) -> Iterator[Block]:
    try:
        with pa.memory_map(str(path)) as source:
            stream = source.read(6) == b"ARROW1"
            source.seek(0)
            batches: Iterator[pa.RecordBatch]
            if stream:
                reader = pa.ipc.open_file(source)
                batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
            else:
                batches = iter(pa.ipc.open_stream(source))
            row = 0
            for whole in batches:
                picked = whole.select(columns) if columns is not None else whole
                for start in range(0, picked.num_rows, TABLE_ROWS):
                    table = picked.slice(start, TABLE_ROWS)
                    yield Block(path, "table", b"", first_row=row, table=table)
                    row += table.num_rows
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise _damaged(path, error) from None


def column_names(path: Path, form: str) -> list[str]:
    """The columns of a Parquet or Arrow file; raises UserError where it is damaged."""
    try:
        if form == "parquet":
            from pyarrow import parquet

            return list(parquet.read_schema(path).names)
        with pa.memory_map(str(path)) as source:
            head = source.read(6)
            source.seek(0)
            opened = pa.ipc.open_file(source) if head == b"ARROW1" else pa.ipc.open_stream(source)
            return list(opened.schema.names)
    except pa.ArrowInvalid as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError("the file is damaged", file=path, found=str(error).split("\n")[0], hint="fetch or make it again")
