"""The one record type: a conversation with roles, or a document; kept in columns, many at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

SYSTEM, USER, ASSISTANT, DOCUMENT = range(4)
ROLE_NAMES = ("system", "user", "assistant", "document")

# What public data sets call the three roles.
ROLES = {
    "system": SYSTEM,
    "user": USER,
    "human": USER,
    "assistant": ASSISTANT,
    "gpt": ASSISTANT,
}


class Problem(NamedTuple):
    """What is wrong with one record. `row` counts the records of its block from 0."""

    row: int
    problem: str
    found: str | None = None
    expected: str | None = None


@dataclass
class Batch:
    """Many records. Row i has the turns offsets[i]:offsets[i+1].

    texts: StringArray [turns]; roles: uint8 [turns]; offsets: int64 [rows + 1];
    source: int64 [rows], the record of the block that each row was read from.
    """

    texts: pa.StringArray
    roles: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.int64]
    source: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def select(self, keep: npt.NDArray[np.bool_]) -> Batch:
        """The rows where `keep` (bool [rows]) is true."""
        if keep.all():
            return self
        lengths = np.diff(self.offsets)
        turns = np.repeat(keep, lengths)
        offsets = np.concatenate(([0], np.cumsum(lengths[keep])))
        return Batch(self.texts.filter(arrow(turns)), self.roles[turns], offsets, self.source[keep])

    def with_system(self, text: str) -> Batch:
        """The same with a system turn `text` put before each conversation that has none."""
        count = len(self.roles)
        starts = self.offsets[:-1]
        lacking = (self.roles[starts] != SYSTEM) & (self.roles[starts] != DOCUMENT)
        if not lacking.any():
            return self
        lengths = np.diff(self.offsets) + lacking
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        order = np.full(offsets[-1], count, dtype=np.int64)
        own = np.ones(offsets[-1], dtype=np.bool_)
        own[offsets[:-1][lacking]] = False
        order[own] = np.arange(count)
        texts = pa.concat_arrays([self.texts, string(text)]).take(arrow(order))
        roles = np.append(self.roles, np.uint8(SYSTEM))[order]
        return Batch(texts, roles, offsets, self.source)


def arrow(values: npt.NDArray[np.int64] | npt.NDArray[np.int32] | npt.NDArray[np.bool_]) -> pa.Array:
    """The same values as an Arrow array. pa.array would import pandas first: half a second and 40 MB for nothing."""
    if values.dtype == np.bool_:
        packed = pa.py_buffer(np.packbits(values, bitorder="little"))
        return pa.Array.from_buffers(pa.bool_(), len(values), [None, packed])
    kind = pa.int32() if values.dtype == np.int32 else pa.int64()
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])


def string(text: str) -> pa.StringArray:
    """An array of this one text."""
    data = text.encode()
    offsets = pa.py_buffer(np.array([0, len(data)], dtype=np.int32))
    return pa.Array.from_buffers(pa.string(), 1, [None, offsets, pa.py_buffer(data)])


def integers(array: pa.Array) -> npt.NDArray[np.int64]:
    """An int32 or int64 array without nulls as int64; to_numpy would import pandas, as `arrow` says."""
    if not len(array):
        return np.zeros(0, dtype=np.int64)
    kind = np.int32 if pa.types.is_int32(array.type) else np.int64
    return np.frombuffer(array.buffers()[1], dtype=kind)[array.offset : array.offset + len(array)].astype(np.int64)


def pairs(first: pa.StringArray, second: pa.StringArray) -> Batch:
    """Conversations of one question (`first`) and one answer (`second`) each."""
    rows = len(first)
    order = np.arange(2 * rows).reshape(2, rows).T.ravel()
    texts = pa.concat_arrays([first, second]).take(arrow(order))
    roles = np.tile(np.array([USER, ASSISTANT], dtype=np.uint8), rows)
    return Batch(texts, roles, np.arange(0, 2 * rows + 1, 2), np.arange(rows))


def documents(texts: pa.StringArray) -> Batch:
    """One document a row."""
    rows = len(texts)
    return Batch(texts, np.full(rows, DOCUMENT, dtype=np.uint8), np.arange(rows + 1), np.arange(rows))


def from_turns(conversations: list[list[tuple[int, str]]], source: list[int]) -> Batch:
    """A batch from Python lists of (role, text), one list a row, each with at least one turn."""
    texts = pa.array([text for turns in conversations for _, text in turns], pa.string())
    roles = np.array([role for turns in conversations for role, _ in turns], dtype=np.uint8)
    offsets = np.concatenate(([0], np.cumsum([len(turns) for turns in conversations], dtype=np.int64)))
    return Batch(texts, roles, offsets.astype(np.int64), np.asarray(source, dtype=np.int64))


def to_turns(batch: Batch) -> list[list[tuple[int, str]]]:
    """The reverse of `from_turns`."""
    turns = list(zip(batch.roles.tolist(), batch.texts.to_pylist(), strict=True))
    return [turns[a:b] for a, b in zip(batch.offsets[:-1].tolist(), batch.offsets[1:].tolist(), strict=True)]


def check(batch: Batch) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_], list[Problem]]:
    """Which rows are malformed (bool [rows]), which have only an odd number of turns, and why each malformed one is.

    A conversation is an optional system turn, then user and assistant in turn, ending with the
    assistant; one that ends with the user is odd, which is for the caller to judge.
    """
    rows = len(batch)
    if rows == 0:
        none = np.zeros(0, dtype=np.bool_)
        return none, none, []
    starts = batch.offsets[:-1]
    lengths = np.diff(batch.offsets)
    document = batch.roles[starts] == DOCUMENT
    system = batch.roles[starts] == SYSTEM
    place = np.arange(len(batch.roles)) - np.repeat(starts + system, lengths)
    expected = np.where(place % 2 == 0, USER, ASSISTANT)
    wrong = (batch.roles != expected) & (place >= 0) & ~np.repeat(document, lengths)
    misplaced = np.add.reduceat(wrong, starts) > 0
    body = lengths - system
    short = ~document & (body == 0)
    odd = ~document & ~misplaced & ~short & (body % 2 == 1)
    nul = np.zeros(rows, dtype=np.bool_)
    _, offsets, data = string_buffers(batch.texts)
    if not data.all():
        turns = np.searchsorted(offsets, np.flatnonzero(data == 0), side="right") - 1
        nul[np.searchsorted(batch.offsets, turns, side="right") - 1] = True
    turn_is_empty = (np.diff(offsets) == 0) & ((batch.roles == USER) | (batch.roles == ASSISTANT))
    empty = np.add.reduceat(turn_is_empty, starts) > 0
    bad = misplaced | short | nul | empty
    problems = []
    for row in np.flatnonzero(bad).tolist():
        names = [ROLE_NAMES[role] for role in batch.roles[batch.offsets[row] : batch.offsets[row + 1]]]
        shown = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
        if nul[row]:
            problems.append(Problem(int(batch.source[row]), "a NUL character in the text", expected="text"))
        elif empty[row] and not misplaced[row]:
            role = names[int(np.flatnonzero(turn_is_empty[batch.offsets[row] : batch.offsets[row + 1]])[0])]
            problems.append(Problem(int(batch.source[row]), f"an empty message of the {role}", expected="text"))
        else:
            order = "user and assistant in turn, at most one system message before them"
            what = "no turn of a user" if short[row] else "roles out of order"
            problems.append(Problem(int(batch.source[row]), what, found=shown, expected=order))
    return bad, odd & ~bad, problems


def string_buffers(array: pa.StringArray) -> tuple[int, npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """The length of a string array without nulls, its offsets from 0 (int64 [n + 1]) and its UTF-8 bytes."""
    count = len(array)
    _, offset_buffer, data_buffer = array.buffers()
    if count == 0:
        return 0, np.zeros(1, dtype=np.int64), np.zeros(0, dtype=np.uint8)
    offsets = np.frombuffer(offset_buffer, dtype=np.int32)[array.offset : array.offset + count + 1].astype(np.int64)
    data = np.frombuffer(data_buffer or b"", dtype=np.uint8)[offsets[0] : offsets[-1]]
    return count, offsets - offsets[0], data
