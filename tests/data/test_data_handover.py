"""What one process leaves and another takes: the same value, and no more memory than it needs."""

from __future__ import annotations

import json
import os
import sys
from multiprocessing import Process
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.data.block import Block
from common.data.convert import Texts
from common.data.handover import Place, size
from common.data.rejects import Counts

arrays = st.builds(
    lambda kind, count: np.arange(count).astype(kind),
    st.sampled_from(["int32", "int64", "bool"]),
    st.integers(0, 20_000),
)
values = st.recursive(
    st.none() | st.integers() | st.text() | st.binary(max_size=9000) | arrays,
    lambda each: st.lists(each, max_size=4) | st.dictionaries(st.text(max_size=5), each, max_size=4),
    max_leaves=8,
)


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other) and bool(other.flags.writeable)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(equal(one[name], other[name]) for name in one)
    return bool(one == other)


@pytest.mark.parametrize("shared", [True, False])
def test_any_value_comes_back_the_same(shared: bool) -> None:
    place = Place(shared=shared)

    @settings(deadline=None)
    @given(values)
    def comes_back(value: Any) -> None:
        assert equal(value, place.get(place.put(value)))

    comes_back()
    place.close()


@pytest.mark.parametrize("shared", [True, False])
def test_blocks_and_texts_come_back_the_same(shared: bool, tmp_path: Any) -> None:
    place = Place(shared=shared)
    table = pa.record_batch({"text": ["x" * 50] * 100_000})
    for block in (
        Block(tmp_path, "lines", b"{}\n" * 5000, 7),
        Block(tmp_path, "lines", b"{}\n", 7),
        Block(tmp_path, "table", b"", first_row=10, table=table.slice(10, 300)),
    ):
        back = place.get(place.put(block))
        assert (back.file, back.kind, back.data, back.first_line) == (
            tmp_path,
            block.kind,
            block.data,
            block.first_line,
        )
        assert isinstance(back.data, bytes) or not shared
        assert (back.table is None) if block.table is None else back.table.equals(block.table)
    assert size(place.put(Block(tmp_path, "table", b"", table=table.slice(0, 300)))) < 30_000  # not all of the table
    text = Texts(b"said" * 5000, 3, Counts(records=3), [], 9)
    assert place.get(place.put(text)) == text
    place.close()


@pytest.mark.skipif(sys.platform != "linux", reason="shared memory is Linux's")
def test_another_process_answers_in_the_same_place() -> None:
    place = Place(shared=True)
    first = place.put(np.arange(100_000))

    def double() -> None:
        answer = place.put(place.get(first) * 2)
        os.write(into, json.dumps(answer).encode())

    out, into = os.pipe()
    child = Process(target=double)
    child.start()
    child.join()
    made = place.get(json.loads(os.read(out, 1000)))
    assert np.array_equal(made, np.arange(100_000) * 2)
    place.close()


@pytest.mark.skipif(sys.platform != "linux", reason="shared memory is Linux's")
def test_a_place_does_not_keep_the_largest_value_it_had() -> None:
    place = Place(shared=True)
    place.put(np.zeros(30 * 2**20, dtype=np.uint8))
    held = os.fstat(place._file)
    assert held.st_blocks * 512 >= 30 * 2**20
    assert place.get(place.put("small")) == "small"
    assert os.fstat(place._file).st_blocks * 512 < 2**20
    place.close()
