"""Held-out rows: chosen by the seed and the row, whatever the blocks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data_support import as_messages, run, write_jsonl
from hypothesis import given, settings
from hypothesis import strategies as st

from common.data import blocks
from common.data.holdout import HoldOut, keys
from common.data.tokens import TokenRows, concatenate


def rows(first: int, count: int) -> TokenRows:
    ids = np.arange(first, first + count, dtype=np.int32)
    offsets = np.arange(count + 1)
    return TokenRows(ids, np.ones(count, dtype=np.bool_), offsets, np.zeros(count, dtype=np.int32), offsets[:-1])


def split(hold: HoldOut, sizes: list[int]) -> tuple[list[int], list[int]]:
    train: list[int] = []
    out: list[int] = []
    first = 0
    for size in sizes:
        kept, held = hold.split(rows(first, size))
        first += size
        train += kept.ids.tolist()
        out += [] if held is None else held.ids.tolist()
    last = hold.held()
    return train, out + ([] if last is None else last.ids.tolist())


@settings(max_examples=100, deadline=None)
@given(sizes=st.lists(st.integers(0, 30), min_size=1, max_size=6), count=st.integers(1, 20), seed=st.integers(0, 5))
def test_a_count_is_held_out_and_nothing_is_lost(sizes: list[int], count: int, seed: int) -> None:
    total = sum(sizes)
    train, out = split(HoldOut(count=count, seed=seed), sizes)
    assert sorted(train + out) == list(range(total))
    assert len(out) == min(count, total) and out == sorted(out)
    smallest = np.argsort(keys(0, total, seed), kind="stable")[:count]
    assert out == sorted(smallest.tolist())


@settings(max_examples=50, deadline=None)
@given(sizes=st.lists(st.integers(0, 50), min_size=1, max_size=6), seed=st.integers(0, 5))
def test_a_fraction_does_not_depend_on_the_blocks(sizes: list[int], seed: int) -> None:
    train, out = split(HoldOut(fraction=0.3, seed=seed), sizes)
    assert sorted(train + out) == list(range(sum(sizes)))
    assert (train, out) == split(HoldOut(fraction=0.3, seed=seed), [sum(sizes)])


def test_the_fraction_is_met_and_the_seed_counts() -> None:
    _, out = split(HoldOut(fraction=0.1, seed=1), [20_000])
    assert 1800 < len(out) < 2200
    assert out != split(HoldOut(fraction=0.1, seed=2), [20_000])[1]


@pytest.mark.parametrize("format", ["arrow", "jsonl"])
def test_blocks_of_which_nothing_is_held_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str) -> None:
    monkeypatch.setattr(blocks.read, "__defaults__", (500, None))
    path = write_jsonl(tmp_path / "a.jsonl", [as_messages((None, [(str(n), "yes")])) for n in range(40)])
    meta = run(path, tmp_path / "out", format=format, eval_fraction=0.02, seed=4)
    assert (meta["train"]["rows"], meta["eval"]["rows"]) == (39, 1)
    if format == "jsonl":
        written = [(tmp_path / "out" / part / "rows.jsonl").read_text().splitlines() for part in ("train", "eval")]
        assert [len(lines) for lines in written] == [39, 1]


def test_rows_can_be_joined_again() -> None:
    joined = concatenate([rows(0, 3), rows(3, 0), rows(3, 2)])
    assert joined.ids.tolist() == [0, 1, 2, 3, 4] and joined.offsets.tolist() == [0, 1, 2, 3, 4, 5]
