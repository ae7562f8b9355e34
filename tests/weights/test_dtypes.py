"""Casts are exact: round to nearest, ties to even, NaN stays NaN, nothing becomes infinite in silence."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import UserError
from common.weights.dtypes import BF16, FP16, FP32, DType, by_name, cast


def as_bits(value: float) -> int:
    return int(struct.unpack("<I", struct.pack("<f", value))[0])


def from_bits(bits: int) -> float:
    return float(struct.unpack("<f", struct.pack("<I", bits))[0])


def to_bf16(value: float) -> int:
    array = np.array([value], np.float32)
    return int(cast(array, FP32, BF16)[0])


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_bf16_is_the_nearest_value_and_the_even_one_of_two(value: float) -> None:
    # The two bf16 values around `value` share its upper 16 bits, or those plus one.
    below = as_bits(value) >> 16
    candidates = [below, below + 1]
    distances = [abs(from_bits(bits << 16) - value) for bits in candidates]
    if not np.isfinite(distances[1]):  # beyond the largest value: rounded up to infinity from halfway on
        return
    nearest = candidates[distances[1] < distances[0]]
    if distances[0] == distances[1]:
        nearest = next(bits for bits in candidates if bits % 2 == 0)
    assert to_bf16(value) == nearest


@given(st.integers(0, 0x7F7E))
def test_half_way_between_two_values_goes_to_the_even_one(bits: int) -> None:
    value = np.array([bits << 16 | 0x8000], np.uint32).view(np.float32)
    assert int(cast(value, FP32, BF16)[0]) == bits + bits % 2


@given(st.integers(0x7F800001, 0x7FFFFFFF) | st.integers(0xFF800001, 0xFFFFFFFF))
def test_a_nan_stays_a_nan_of_its_sign(bits: int) -> None:
    values = np.array([bits], np.uint32).view(np.float32)
    result = int(cast(values, FP32, BF16)[0])
    assert result & 0x7F80 == 0x7F80
    assert result & 0x007F
    assert result >> 15 == bits >> 31


@given(st.integers(0, 0xFFFF))
def test_bf16_survives_a_stay_in_fp32(bits: int) -> None:
    values = np.array([bits], np.uint16)
    wide = cast(values, BF16, FP32)
    assert wide.view(np.uint32)[0] == bits << 16
    if np.isfinite(wide[0]):
        assert cast(wide, FP32, BF16)[0] == bits


def test_a_value_that_fp16_cannot_hold_is_an_error() -> None:
    big = cast(np.array([1.0, 70000.0], np.float32), FP32, BF16)
    with pytest.raises(UserError, match="does not fit into fp16"):
        cast(big, BF16, FP16)


def test_an_infinity_that_was_there_before_is_no_overflow() -> None:
    values = np.array([np.inf, 1.0], np.float32)
    assert np.isinf(cast(values, FP32, FP16)[0])


def test_an_unknown_dtype_names_the_nearest() -> None:
    with pytest.raises(UserError, match="bf16"):
        by_name("bp16")


@pytest.mark.parametrize(("source", "target"), [(BF16, FP16), (FP16, BF16)])
def test_all_65536_values_between_the_16_bit_types(source: DType, target: DType) -> None:
    every = np.arange(2**16, dtype=np.uint32).astype(np.uint16).view(source.numpy)
    wide = cast(every, source, FP32)
    fits = np.isnan(wide) | np.isinf(wide) | (np.abs(wide) < 65520)
    expected = cast(wide[fits], FP32, target)
    assert np.array_equal(cast(every[fits], source, target).view(np.uint16), expected.view(np.uint16))
