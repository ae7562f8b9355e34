"""Several short documents in one training row.

Position ids begin at 0 at every document: that is what marks its border, and what attention must not
cross. No token of a document is ever lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from common.data.tokens import IGNORE, TokenRows, concatenate, in_another_order, positions

METHODS = ("none", "bfd", "concat")

# A window is what best-fit packing sees at once; it bounds memory whatever the size of the input.
WINDOW_TOKENS = 2_000_000
WINDOW_DOCUMENTS = 32_768


@dataclass
class PackedRows:
    """Training rows. ids, labels, positions: int32 [tokens]; offsets: int64 [rows + 1]; documents: how many."""

    ids: npt.NDArray[np.int32]
    labels: npt.NDArray[np.int32]
    positions: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    documents: int

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def select(self, keep: npt.NDArray[np.bool_]) -> PackedRows:
        """The rows where `keep` (bool [rows]) is true."""
        lengths = np.diff(self.offsets)
        index = np.repeat(keep, lengths)
        offsets = np.concatenate(([0], np.cumsum(lengths[keep])))
        return PackedRows(self.ids[index], self.labels[index], self.positions[index], offsets, self.documents)


def unpacked(rows: TokenRows) -> PackedRows:
    """One document a row."""
    return PackedRows(rows.ids, _labels(rows.ids, rows.loss), positions(rows.offsets), rows.offsets, len(rows))


def _labels(ids: npt.NDArray[np.int32], loss: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    return np.where(loss, ids, np.int32(IGNORE))


class Packer:
    """Collects documents into windows and packs each; `add` and `finish` give the rows that are ready."""

    def __init__(self, method: str, length: int) -> None:
        self.method = method
        self.length = length
        self._waiting: list[TokenRows] = []
        self._tokens = 0
        self._documents = 0
        self._uncounted = 0  # documents that no row given out so far has been counted for

    def add(self, rows: TokenRows) -> Iterator[PackedRows]:
        """Take documents, none longer than a row unless the method is concat."""
        if self.method == "none":
            if len(rows):
                yield unpacked(rows)
            return
        # The border of a window depends on the documents alone, not on how they arrive.
        while len(rows):
            room = min(WINDOW_DOCUMENTS - self._documents, len(rows))
            fits = int(np.searchsorted(rows.offsets, WINDOW_TOKENS - self._tokens + rows.offsets[0], side="right")) - 1
            take = min(room, max(fits, 0 if self._documents else 1))
            if take:
                part = _slice(rows, 0, take)
                self._waiting.append(part)
                self._tokens += len(part.ids)
                self._documents += take
                self._uncounted += take
                rows = _slice(rows, take, len(rows))
            if len(rows):
                yield from self._flush(last=False)

    def finish(self) -> Iterator[PackedRows]:
        """What is left."""
        yield from self._flush(last=True)

    def _flush(self, *, last: bool) -> Iterator[PackedRows]:
        if not self._waiting:
            return
        window = concatenate(self._waiting)
        self._waiting, self._tokens, self._documents = [], 0, 0
        if self.method == "bfd":
            yield best_fit(window, self.length)
            return
        packed, rest = cut_every(window, self.length, last=last)
        if rest is not None:
            self._waiting = [rest]  # less than a row: it does not count towards the next window
        if len(packed):
            packed.documents = self._uncounted
            self._uncounted = 0
            yield packed


def _slice(rows: TokenRows, start: int, stop: int) -> TokenRows:
    a, b = rows.offsets[start], rows.offsets[stop]
    offsets = rows.offsets[start : stop + 1] - a
    return TokenRows(rows.ids[a:b], rows.loss[a:b], offsets, rows.prompt[start:stop], rows.source[start:stop])


def best_fit(rows: TokenRows, length: int) -> PackedRows:
    """Best-fit decreasing: each document, longest first, into the fullest row that still has room for it.

    Rows come in the order of the first document in each, documents in a row in their own order.
    """
    row_of = assign(np.diff(rows.offsets), length)
    order = np.lexsort((np.arange(len(row_of)), row_of))
    ids, documents = in_another_order(rows.ids, rows.offsets, order)
    loss, _ = in_another_order(rows.loss, rows.offsets, order)
    ends = np.append(np.flatnonzero(np.diff(row_of[order])) + 1, len(order))
    offsets = np.concatenate(([0], documents[ends]))
    return PackedRows(ids, _labels(ids, loss), positions(documents), offsets, len(rows))


def assign(lengths: npt.NDArray[np.int64], capacity: int) -> npt.NDArray[np.int64]:
    """The row that each document goes to (int64 [documents]) under best-fit decreasing.

    Documents of one length are placed together, and rows with one amount of room are kept together, so
    that the work grows with the number of different lengths rather than with the documents.
    """
    order = np.argsort(-lengths, kind="stable")
    ordered = lengths[order]
    borders = np.flatnonzero(np.diff(ordered)) + 1
    rooms: dict[int, list[int]] = {}  # room left -> rows that have it
    filled = 0  # a bit for every amount of room that some row has
    made = 0
    row_of = np.empty(len(lengths), dtype=np.int64)
    for group in np.split(order, borders):
        size = int(lengths[group[0]])
        taken = 0
        while taken < len(group):
            fitting = filled >> size
            if fitting:
                room = size + (fitting & -fitting).bit_length() - 1
                rows = rooms[room]
            else:
                room = capacity
                fresh = -(-(len(group) - taken) // (capacity // size))
                rows = list(range(made + fresh - 1, made - 1, -1))
                made += fresh
                rooms.setdefault(capacity, []).extend(rows)
                filled |= 1 << capacity
                rows = rooms[capacity]
            each = room // size  # the fullest row that fits stays the fullest until nothing more fits
            row = rows.pop()
            if not rows:
                filled &= ~(1 << room)
            count = min(each, len(group) - taken)
            row_of[group[taken : taken + count]] = row
            taken += count
            left = room - count * size
            rooms.setdefault(left, []).append(row)
            filled |= 1 << left
    # Number the rows by their first document, so that the order of the input shows through.
    _, first = np.unique(row_of, return_index=True)
    rank = np.empty(made, dtype=np.int64)
    rank[np.argsort(first, kind="stable")] = np.arange(made)
    return rank[row_of]


def cut_every(rows: TokenRows, length: int, *, last: bool) -> tuple[PackedRows, TokenRows | None]:
    """All documents one after the other, cut every `length` tokens; and what is left for the next window.

    A document that is cut goes on in the next row as a document of its own, at position 0. With
    `last` the tail becomes a shorter row, otherwise it is given back.
    """
    total = int(rows.offsets[-1])
    used = total if last else total - total % length
    rest = None
    if used < total:
        first = int(np.searchsorted(rows.offsets, used, side="right")) - 1
        offsets = np.concatenate(([used], rows.offsets[first + 1 :])) - used
        loss = rows.loss[used:].copy()
        rest = TokenRows(rows.ids[used:], loss, offsets, rows.prompt[first:], rows.source[first:])
    cuts = np.append(np.arange(0, used, length), used) if used else np.zeros(1, dtype=np.int64)
    borders = np.unique(np.concatenate((rows.offsets[rows.offsets < used], cuts)))
    loss = rows.loss[:used].copy()
    loss[borders[:-1]] = False
    labels = _labels(rows.ids[:used], loss)
    return PackedRows(rows.ids[:used], labels, positions(borders), cuts, documents=len(rows)), rest
