"""Packing: every token kept, no document across a border, rows as full as the plain algorithm makes them."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from common.data import packing
from common.data.packing import PackedRows, Packer
from common.data.tokens import TokenRows

LENGTH = 16
documents = st.lists(st.lists(st.booleans(), min_size=1, max_size=LENGTH), min_size=1, max_size=40)
any_documents = st.lists(st.lists(st.booleans(), min_size=1, max_size=50), min_size=1, max_size=40)


def token_rows(losses: list[list[bool]]) -> TokenRows:
    """Documents whose ids are all different; the first token of a document is never trained."""
    offsets = np.cumsum([0] + [len(loss) for loss in losses])
    flat = np.array([trained and place > 0 for loss in losses for place, trained in enumerate(loss)], dtype=np.bool_)
    ids = np.arange(offsets[-1], dtype=np.int32) + 1000
    zeros = np.zeros(len(losses), dtype=np.int64)
    return TokenRows(ids, flat, offsets, zeros.astype(np.int32), np.arange(len(losses)))


def pack(method: str, parts: list[TokenRows]) -> list[PackedRows]:
    packer = Packer(method, LENGTH)
    return [made for part in parts for made in packer.add(part)] + list(packer.finish())


def lists(packed: list[PackedRows]) -> list[tuple[list[int], list[int], list[int]]]:
    """Of every row: ids, labels, positions."""
    made = []
    for rows in packed:
        for a, b in itertools.pairwise(rows.offsets.tolist()):
            made.append((rows.ids[a:b].tolist(), rows.labels[a:b].tolist(), rows.positions[a:b].tolist()))
    return made


def pieces(rows: list[tuple[list[int], list[int], list[int]]]) -> list[tuple[int, ...]]:
    """The documents of all rows, cut where the position is 0."""
    made = []
    for ids, _, positions in rows:
        borders = [place for place, position in enumerate(positions) if position == 0]
        assert borders[0] == 0
        for a, b in itertools.pairwise([*borders, len(ids)]):
            assert positions[a:b] == list(range(b - a))
            made.append(tuple(ids[a:b]))
    return made


def naive_bins(lengths: list[int], capacity: int) -> int:
    rooms: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [room for room in rooms if room >= length]
        room = min(fitting) if fitting else capacity
        if fitting:
            rooms.remove(room)
        rooms.append(room - length)
    return len(rooms)


@settings(max_examples=200, deadline=None)
@given(losses=documents)
def test_best_fit_keeps_every_document_whole(losses: list[list[bool]]) -> None:
    rows = token_rows(losses)
    made = lists(pack("bfd", [rows]))
    expected = sorted(tuple(rows.ids[a:b].tolist()) for a, b in itertools.pairwise(rows.offsets.tolist()))
    assert sorted(pieces(made)) == expected
    assert all(len(ids) <= LENGTH for ids, _, _ in made)
    assert len(made) == naive_bins([len(loss) for loss in losses], LENGTH)
    assert [ids[0] for ids, _, _ in made] == sorted(ids[0] for ids, _, _ in made)  # the input's order shows through
    check_labels(rows, made)


def check_labels(rows: TokenRows, made: list[tuple[list[int], list[int], list[int]]]) -> None:
    trained = dict(zip(rows.ids.tolist(), rows.loss.tolist(), strict=True))
    for ids, labels, positions in made:
        for token, label, position in zip(ids, labels, positions, strict=True):
            assert label == (token if trained[token] and position else -100)


@settings(max_examples=200, deadline=None)
@given(losses=any_documents)
def test_concatenating_keeps_every_token_in_order(losses: list[list[bool]]) -> None:
    rows = token_rows(losses)
    made = lists(pack("concat", [rows]))
    assert [token for ids, _, _ in made for token in ids] == rows.ids.tolist()
    assert all(len(ids) == LENGTH for ids, _, _ in made[:-1]) and 1 <= len(made[-1][0]) <= LENGTH
    check_labels(rows, made)
    starts = {int(rows.ids[a]) for a in rows.offsets[:-1]}
    for ids, _, positions in made:
        assert {token for token, position in zip(ids, positions, strict=True) if position == 0} == (
            starts & set(ids) | {ids[0]}
        )


@settings(max_examples=60, deadline=None)
@given(losses=any_documents, cuts=st.lists(st.integers(0, 40), max_size=4), method=st.sampled_from(["bfd", "concat"]))
def test_windows_do_not_depend_on_how_the_documents_arrive(
    losses: list[list[bool]], cuts: list[int], method: str
) -> None:
    if method == "bfd":
        losses = [loss[:LENGTH] for loss in losses]
    rows = token_rows(losses)
    borders = sorted({0, len(losses), *(cut for cut in cuts if cut < len(losses))})
    parts = [packing._slice(rows, a, b) for a, b in itertools.pairwise(borders)]
    kept = packing.WINDOW_TOKENS, packing.WINDOW_DOCUMENTS
    try:
        packing.WINDOW_TOKENS, packing.WINDOW_DOCUMENTS = 60, 7
        assert lists(pack(method, parts)) == lists(pack(method, [rows]))
        if method == "concat":
            assert [t for ids, _, _ in lists(pack(method, parts)) for t in ids] == rows.ids.tolist()
        else:
            assert sorted(t for ids, _, _ in lists(pack(method, parts)) for t in ids) == rows.ids.tolist()
    finally:
        packing.WINDOW_TOKENS, packing.WINDOW_DOCUMENTS = kept


@settings(max_examples=100, deadline=None)
@given(lengths=st.lists(st.integers(1, 64), min_size=1, max_size=200))
def test_grouped_assignment_is_best_fit_decreasing(lengths: list[int]) -> None:
    row_of = packing.assign(np.array(lengths), 64)
    loads = np.bincount(row_of, weights=lengths)
    assert loads.max() <= 64 and loads.min() > 0
    assert len(loads) == naive_bins(lengths, 64)
