"""The objects of a JSON array, cut out of its bytes as they are read, be it all on one line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from common.data.block import RECORD_BYTES, TOO_LONG, Block
from common.data.files import WRAPPED_ARRAY, InputFile
from common.errors import UserError

_STRUCTURE = np.zeros(256, dtype=np.bool_)
_STRUCTURE[list(b'"\\{}[],')] = True
_DEPTH = np.zeros(256, dtype=np.int8)
_DEPTH[list(b"{[")] = 1
_DEPTH[list(b"}]")] = -1
_QUOTE, _BACKSLASH, _COMMA = b'"\\,'
_BETWEEN = b" \t\r\n,"


@dataclass(frozen=True)
class Place:
    """Where in an array a read ends: how deep within an element, in a string or not, after a backslash or not."""

    depth: int = 0
    in_string: bool = False
    escaped: bool = False


@dataclass
class Scan:
    """Where elements of an array end: ends int64 [elements], commas int64; the closing bracket, if it came."""

    ends: npt.NDArray[np.int64]
    commas: npt.NDArray[np.int64]
    end_of_array: int | None
    place: Place

    def after(self, start: int) -> Scan:
        """The same of what begins at `start`."""
        closing = None if self.end_of_array is None else self.end_of_array - start
        ends, commas = (each[each > start] - start for each in (self.ends, self.commas + 1))
        return Scan(ends, commas - 1, closing, self.place)


def scan(data: bytes, place: Place = Place()) -> Scan:
    """The ends of the objects at the top of an array in `data`, which begins at `place`."""
    raw = np.frombuffer(data, dtype=np.uint8)
    at = np.flatnonzero(_STRUCTURE[raw])
    what = raw[at]
    quote = what == _QUOTE
    slashes = at[what == _BACKSLASH]
    escaped = np.zeros(len(raw) + 1, dtype=np.bool_)
    if place.escaped:
        escaped[0] = True
        slashes = slashes[slashes != 0]
    if len(slashes):
        # In a run of backslashes every other one escapes the next character.
        begins = np.concatenate(([True], np.diff(slashes) != 1))
        nth = np.arange(len(slashes)) - np.flatnonzero(begins)[np.cumsum(begins) - 1]
        escaped[slashes[nth % 2 == 0] + 1] = True
    quote &= ~escaped[at]
    inside = (np.cumsum(quote) + place.in_string) % 2 == 1
    outside = ~inside & ~quote & (what != _BACKSLASH)
    in_string = bool(inside[-1]) if len(inside) else place.in_string
    at, what = at[outside], what[outside]
    change = _DEPTH[what]
    depth = place.depth + np.cumsum(change, dtype=np.int64)
    closed = np.flatnonzero(depth < 0)
    end_of_array = None
    if len(closed):
        end_of_array = int(at[closed[0]])
        within = slice(0, int(closed[0]))
        at, what, change, depth = at[within], what[within], change[within], depth[within]
    top = depth == 0
    now = Place(int(depth[-1]) if len(depth) else place.depth, in_string, bool(escaped[len(raw)]))
    return Scan(at[top & (change < 0)] + 1, at[top & (what == _COMMA)], end_of_array, now)


def read(file: InputFile, size: int) -> Iterator[Block]:
    """The blocks of a file that is one JSON array; raises UserError where it is damaged."""
    array = _Array(file.path)
    source = file.blocks(size)
    head = b""
    for block in source:
        head += block
        if (start := _after_bracket(head)) is not None:
            break
    else:
        raise UserError("not a JSON array", file=file.path, found=repr(head[:40]), expected="'['")
    array.line += head.count(b"\n", 0, start)
    yield from array.take(head[start:])
    while array.after is None:
        block = next(source, b"")
        if not block:
            last = array.line + b"".join(array.parts).count(b"\n")
            hint = "the file was cut off: fetch or make it again"
            raise UserError("the JSON array has no end", file=file.path, line=last, expected="']'", hint=hint)
        yield from array.take(block)
    if WRAPPED_ARRAY.match(head.removeprefix(b"\xef\xbb\xbf")) is None:
        for block in (array.after, *source):
            if more := block.strip():
                found, hint = repr(more[:40]), "one array a file, or one object a line"
                raise UserError("more follows the JSON array", file=file.path, line=array.line, found=found, hint=hint)


class _Array:
    """What has been read of an array and is not yet given out, which begins at `line`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.line = 1
        self.parts: list[bytes] = []
        self.after: bytes | None = None  # what follows the closing bracket, once that has come
        self._held = 0
        self._commas: list[npt.NDArray[np.int64]] = []
        self._place = Place()
        self._first = True
        self._lost = False  # within a record that is too long

    def take(self, block: bytes) -> Iterator[Block]:
        """The blocks that are whole with `block`."""
        found = scan(block, self._place)
        self._place = found.place
        if self._lost:
            end = int(found.ends[0]) if len(found.ends) else len(block)
            self.line += block.count(b"\n", 0, end)
            if not len(found.ends):
                return
            found, block, self._lost = found.after(end), block[end:], False
        closing = found.end_of_array
        if closing is None and not len(found.ends):
            self._hold(block, found.commas)
            if self._held > RECORD_BYTES and _is_too_long(data := b"".join(self.parts)):
                yield self._too_long(data)
                self._lost = True
            return
        end = closing if closing is not None else int(found.ends[-1])
        data = b"".join([*self.parts, block[:end]])
        commas = np.concatenate([*self._commas, found.commas[found.commas < end] + self._held])
        ends = found.ends + self._held
        first = int(ends[0]) if len(ends) else 0
        if first > RECORD_BYTES and _is_too_long(data[:first]):
            yield self._too_long(data[:first])
            data, ends, commas = data[first:], ends[1:] - first, commas[commas >= first] - first
        if len(ends):
            yield self._whole(data, ends, commas)
        elif rest := data.strip(b" \t\r\n"):
            self._refuse_rest(rest, self.line)
        self.line += data.count(b"\n")
        self.parts, self._commas, self._held = [], [], 0
        self._hold(block[end:], found.commas[found.commas >= end] - end)
        if closing is not None:
            self.after = block[closing + 1 :]

    def _hold(self, block: bytes, commas: npt.NDArray[np.int64]) -> None:
        self.parts.append(block)
        self._commas.append(commas + self._held)
        self._held += len(block)

    def _too_long(self, data: bytes) -> Block:
        """The block that stands for the record in `data`, which is let go."""
        begins = len(data) - len(data.lstrip(_BETWEEN))
        place = self.line + data.count(b"\n", 0, begins)
        self.line += data.count(b"\n")
        self.parts, self._commas, self._held, self._first = [], [], 0, False
        return Block(self.path, TOO_LONG, b"", place)

    def _whole(self, data: bytes, ends: npt.NDArray[np.int64], commas: npt.NDArray[np.int64]) -> Block:
        """The block of the elements in `data`, with the commas between them blanked."""
        # One comma stands between two elements; a block that is not the first begins with one.
        before = np.searchsorted(commas, ends)
        expected = np.arange(len(ends)) + (not self._first)
        if (before != expected).any():
            wrong = int(np.argmax(before != expected))
            behind = data[int(ends[wrong - 1]) if wrong else 0 :]
            where = self.line + data.count(b"\n", 0, len(data) - len(behind.lstrip(_BETWEEN)))  # where it begins
            between = "one comma between two records"
            raise UserError("the JSON array is damaged", file=self.path, line=where, expected=between)
        last = int(ends[-1])
        if rest := data[last:].strip():
            self._refuse_rest(rest, self.line + data.count(b"\n", 0, last))
        self._first = False
        if len(commas):
            raw = np.frombuffer(data, dtype=np.uint8).copy()
            raw[commas] = ord(" ")
            data = raw.tobytes()
        return Block(self.path, "elements", data, self.line)

    def _refuse_rest(self, rest: bytes, line: int) -> None:
        """Raises UserError for what stands after the last element."""
        if not rest.strip(_BETWEEN):
            between = "one comma between two records"
            raise UserError("the JSON array is damaged", file=self.path, line=line, found="','", expected=between)
        raise UserError("not a record", file=self.path, line=line, found=repr(rest[:40]), expected="a JSON object")


def _is_too_long(data: bytes) -> bool:
    return len(data.lstrip(_BETWEEN)) > RECORD_BYTES


def _after_bracket(data: bytes) -> int | None:
    """Where the array begins after its opening bracket; None while that has not come."""
    mark = len(data) - len(data.removeprefix(b"\xef\xbb\xbf"))
    if match := WRAPPED_ARRAY.match(data, mark):
        return match.end()
    opened = data[mark:].lstrip()
    return len(data) - len(opened) + 1 if opened.startswith(b"[") else None
