"""The floating-point types weights are stored in, their names in every format, and exact casts.

numpy has no bfloat16: its values are handled as their bits, in uint16 arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from common.errors import UserError, did_you_mean

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class DType:
    """A floating-point type: its name on our command lines and in each file format."""

    name: str
    safetensors: str
    hugging_face: str
    mindspore: str
    torch_storage: str
    itemsize: int  # bytes
    numpy: np.dtype[Any]  # how its values are held here


FP32 = DType("fp32", "F32", "float32", "Float32", "FloatStorage", 4, np.dtype("<f4"))
BF16 = DType("bf16", "BF16", "bfloat16", "BFloat16", "BFloat16Storage", 2, np.dtype("<u2"))
FP16 = DType("fp16", "F16", "float16", "Float16", "HalfStorage", 2, np.dtype("<f2"))
DTYPES = {dtype.name: dtype for dtype in (FP32, BF16, FP16)}


def by_name(name: str) -> DType:
    """The type called `name` (fp32 or float32, bf16, fp16) on a command line. Raises UserError for another name."""
    try:
        return by_hugging_face(name) or DTYPES[name]
    except KeyError:
        hint = did_you_mean(name, DTYPES)
        raise UserError("unknown dtype", found=name, expected=", ".join(DTYPES), hint=hint) from None


def by_hugging_face(name: str) -> DType | None:
    """The type that a config.json calls `name` (`bfloat16` or `torch.bfloat16`), None when unknown."""
    plain = name.removeprefix("torch.")
    return next((dtype for dtype in DTYPES.values() if dtype.hugging_face == plain), None)


def cast(values: Array, source: DType, target: DType) -> Array:
    """`values` of type `source` as `target`, rounded to nearest even; shape kept.

    Raises UserError when a finite value does not fit into the target's range (it would become
    infinite): bf16 weights may hold values beyond fp16's 65504.
    """
    if source is target:
        return values
    if source.itemsize == target.itemsize == 2:
        # 65,536 values in all: looking them up takes less than half the time of computing them.
        result: Array = _table(source.name, target.name)[values.view(np.uint16)]
    else:
        wide = _to_fp32(values, source)
        result = wide if target is FP32 else _narrow(wide, target)
    if target is FP16 and np.isinf(result).any():
        _refuse_overflow(_to_fp32(values, source), result)
    return result


def _narrow(wide: Array, target: DType) -> Array:
    if target is BF16:
        return _fp32_to_bf16(wide)
    with np.errstate(over="ignore"):
        return wide.astype(FP16.numpy)


@cache
def _table(source: str, target: str) -> Array:
    """What each 16-bit pattern of one type is in another of 16 bits."""
    every = np.arange(2**16, dtype=np.uint32).astype(np.uint16).view(DTYPES[source].numpy)
    return _narrow(_to_fp32(every, DTYPES[source]), DTYPES[target])


def _refuse_overflow(wide: Array, narrow: Array) -> None:
    lost = np.abs(wide[np.isinf(narrow) & np.isfinite(wide)])
    if lost.size:
        hint = "use bf16 or fp32"
        raise UserError("a value does not fit into fp16", found=float(lost.max()), expected="at most 65504", hint=hint)


def _to_fp32(values: Array, source: DType) -> Array:
    if source is BF16:
        wide = values.astype(np.uint32)
        wide <<= 16
        return wide.view(np.float32)
    return values.astype(np.float32, copy=False)


def _fp32_to_bf16(values: Array) -> Array:
    bits = np.ascontiguousarray(values).view(np.uint32)
    # Round to nearest, ties to even: add half of the last kept place, minus one unless that place is odd.
    rounded = bits >> 16
    rounded &= 1
    rounded += 0x7FFF
    rounded += bits  # a NaN may overflow here; it is put right below
    rounded >>= 16
    narrow = rounded.astype(np.uint16)
    nan = np.isnan(values)
    if nan.any():
        narrow[nan] = (bits[nan] >> 16).astype(np.uint16) | 0x0040  # stays a NaN, sign and high bits kept
    return narrow
