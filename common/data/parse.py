"""Blocks to records: a whole block at once where it is in order, one record at a time where it is not."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import json as arrow_json

from common.data import json_array
from common.data.block import RECORD_BYTES, TOO_LONG, Block
from common.data.layouts import Layout, RecordError, Turns
from common.data.records import DOCUMENT, Batch, Problem, documents, from_turns
from common.errors import UserError

_BLANK_LINES = re.compile(rb"\n[ \t\r]*\n\s*")
_HEADING = r"^\s*(?:=\s*)+[^=].*=\s*$"


@dataclass
class Parsed:
    """The records of one block. `records`: how many it held; `blank`: documents left out as empty or as headings."""

    batch: Batch
    problems: list[Problem]
    records: int
    blank: int
    lines: Callable[[], npt.NDArray[np.int64]]


def parse(block: Block, layout: Layout) -> Parsed:
    """The records of `block`. A malformed record is in `problems`, never in the batch and never silently gone."""
    if block.kind == "text":
        return _parse_text(block, layout)
    table = block.table if block.data == b"" else _read_json(block, layout)
    batch = None if table is None else layout.columns(table)
    if batch is None:
        return _record_by_record(block, layout)
    return _without_blank(Parsed(batch, [], len(batch), 0, lambda: line_numbers(block)), layout)


def _read_json(block: Block, layout: Layout) -> pa.RecordBatch | None:
    options = arrow_json.ReadOptions(use_threads=False, block_size=len(block.data) + 1024)
    # Strings stay strings: without a schema the reader turns what looks like a date into one.
    how = arrow_json.ParseOptions(explicit_schema=layout.schema(), unexpected_field_behavior="ignore")
    try:
        table = arrow_json.read_json(pa.BufferReader(block.data), read_options=options, parse_options=how)
        table.validate(full=True)
    except pa.ArrowInvalid:
        return None
    batches = table.to_batches()
    if len(batches) != 1 or (block.kind == "lines" and not _one_record_a_line(block.data, len(table))):
        return None
    return batches[0]


def _one_record_a_line(data: bytes, rows: int) -> bool:
    """Whether `rows` is the number of lines that hold something."""
    raw = np.frombuffer(data, dtype=np.uint8)
    breaks = np.flatnonzero(raw == ord("\n"))
    count = len(breaks) + (not data.endswith(b"\n"))
    begins = np.concatenate(([0], breaks + 1))[:count]
    if (raw[begins] <= ord(" ")).any():  # a line may be blank
        count = sum(1 for line in data.split(b"\n") if line.strip())
    return count == rows


def _record_by_record(block: Block, layout: Layout) -> Parsed:
    conversations: list[Turns] = []
    source: list[int] = []
    problems: list[Problem] = []
    row = -1
    for row, value in enumerate(values(block, layout)):
        try:
            if isinstance(value, RecordError):
                raise value
            if not isinstance(value, dict):
                raise RecordError("a record is not an object", f"{type(value).__name__} {str(value)[:40]}", "{...}")
            made = layout.record(value)
        except RecordError as error:
            problems.append(Problem(row, error.problem, error.found, error.expected))
            continue
        conversations.extend(made)
        source.extend([row] * len(made))
    batch = from_turns(conversations, source)
    return _without_blank(Parsed(batch, problems, row + 1, 0, lambda: line_numbers(block)), layout)


def values(block: Block, layout: Layout) -> Iterator[Any]:
    """The records of a block as they stand in it, a RecordError in place of one that cannot be read."""
    if block.table is not None:
        yield from block.table.to_pylist()
        return
    if block.kind == TOO_LONG:
        yield RecordError("the record is too long", expected=f"at most {RECORD_BYTES:,} bytes")
        return
    relevant = _field_names(layout.schema())
    decoder = json.JSONDecoder(object_pairs_hook=lambda pairs: _object(pairs, relevant))
    for line in _pieces(block):
        try:
            text = line.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            yield RecordError("not UTF-8", f"byte {line[error.start]:#04x} at byte {error.start}", "UTF-8")
            continue
        try:
            yield decoder.decode(text)
        except RecordError as error:
            yield error
        except RecursionError:
            yield RecordError("JSON nested too deeply", expected=f"a record of the layout {layout.name}")
        except ValueError as error:
            found = _around(text, getattr(error, "pos", 0))
            what = getattr(error, "msg", str(error)).removesuffix(" at")
            yield RecordError(f"not JSON: {what[:1].lower()}{what[1:]}", found, "one JSON object")


def _around(text: str, at: int) -> str:
    if "\0" in text:
        return f"a NUL byte at character {text.index(chr(0))}"
    start = max(0, at - 20)
    return f"{text[start : at + 20]!r} at character {at}"


def _pieces(block: Block) -> Iterator[bytes]:
    if block.kind == "lines":
        yield from (line for line in block.data.split(b"\n") if line.strip())
        return
    start = 0
    for end in json_array.scan(block.data).ends.tolist():
        yield block.data[start:end].strip()
        start = end


def _object(pairs: list[tuple[str, Any]], relevant: set[str]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        twice = sorted({name for name in names if names.count(name) > 1} & relevant)
        if twice:
            raise RecordError("a field stands twice", repr(twice[0]), "each field once")
    return made


def _field_names(schema: pa.Schema) -> set[str]:
    names: set[str] = set()

    def visit(kind: pa.DataType) -> None:
        if pa.types.is_struct(kind):
            for field in kind:
                names.add(field.name)
                visit(field.type)
        elif pa.types.is_list(kind):
            visit(kind.value_type)

    visit(pa.struct(list(schema)))
    return names


def line_numbers(block: Block) -> npt.NDArray[np.int64]:
    """Where every record of the block stands: its line in the file, or in a table its row, counted from 1."""
    if block.table is not None:
        return np.arange(len(block.table)) + block.first_row + 1
    if block.kind == TOO_LONG:
        return np.array([block.first_line])
    if block.kind == "lines":
        used = [number for number, line in enumerate(block.data.split(b"\n")) if line.strip()]
        return np.asarray(used, dtype=np.int64) + block.first_line
    ends = json_array.scan(block.data).ends[:-1]
    starts = [0, *ends.tolist()]
    raw = np.frombuffer(block.data, dtype=np.uint8)
    # A record begins after the white space that follows the one before it.
    solid = np.flatnonzero(raw > ord(" "))
    begins = solid[np.searchsorted(solid, starts)]
    return np.searchsorted(np.flatnonzero(raw == ord("\n")), begins) + block.first_line


def _parse_text(block: Block, layout: Layout) -> Parsed:
    if layout.schema().names != [layout.column("text")]:
        expected = f"JSON or a table of the layout {layout.name}"
        raise UserError("the file is plain text", file=block.file, line=block.first_line, expected=expected)
    by_line = layout.name == "lines"
    data = block.data.removeprefix(b"\xef\xbb\xbf") if block.first_line == 1 else block.data
    pieces = data.split(b"\n") if by_line else _BLANK_LINES.split(data)
    good: list[str] = []
    source: list[int] = []
    problems: list[Problem] = []
    for row, piece in enumerate(pieces):
        try:
            text = piece.decode().strip()
        except UnicodeDecodeError as error:
            found = f"byte {piece[error.start]:#04x} at byte {error.start}"
            problems.append(Problem(row, "not UTF-8", found, "UTF-8"))
            continue
        if text:
            good.append(text)
            source.append(row)
    batch = documents(pa.array(good, pa.string()))
    batch.source = np.asarray(source, dtype=np.int64)

    def lines() -> npt.NDArray[np.int64]:
        if by_line:
            return np.arange(len(pieces)) + block.first_line
        starts = [0, *(match.end() for match in _BLANK_LINES.finditer(data))]
        breaks = np.flatnonzero(np.frombuffer(data, dtype=np.uint8) == ord("\n"))
        return np.searchsorted(breaks, starts) + block.first_line

    return _without_blank(Parsed(batch, problems, len(good) + len(problems), 0, lines), layout)


def _without_blank(parsed: Parsed, layout: Layout) -> Parsed:
    """Leave out documents without text, and in wikitext the headings."""
    batch = parsed.batch
    if not len(batch) or batch.roles[0] != DOCUMENT:
        return parsed
    keep = pc.not_equal(pc.utf8_trim_whitespace(batch.texts), "")
    if layout.name == "wikitext":
        keep = pc.and_(keep, pc.invert(pc.match_substring_regex(batch.texts, _HEADING)))
    mask = keep.to_numpy(zero_copy_only=False)
    parsed.blank += int((~mask).sum())
    parsed.batch = batch.select(mask)
    return parsed
