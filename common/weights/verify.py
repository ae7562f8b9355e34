"""Prove that two models are the same, whatever their formats: every bit of every tensor."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields

import numpy as np

from common.weights import layouts
from common.weights.dtypes import BF16, FP16, FP32, Array, DType, cast
from common.weights.source import Source
from common.weights.tensors import BLOCK, Tensor, in_dtype
from common.weights.views import HeadsPermuted
from common.weights.writing import WORKERS, Report

_EXPONENTS = {BF16: 0x7F80, FP16: 0x7C00, FP32: 0x7F800000}  # all exponent bits set: infinite or no number
_COMPARED_FIELDS = ("dtype", "pad_token_id", "bos_token_id", "eos_token_id", "max_position_embeddings")


@dataclass
class Comparison:
    """What comparing two models found. They are the same when `problems` is empty."""

    tensors: int = 0
    parameters: int = 0
    casts: int = 0  # tensors of different types, compared after rounding the first to the second's
    problems: list[str] = field(default_factory=list)

    @property
    def same(self) -> bool:
        """Whether every tensor was equal, and finite."""
        return not self.problems


def verify(first: Source, second: Source, report: Report = lambda _: None, workers: int = WORKERS) -> Comparison:
    """Compare every tensor of `second` with `first`, in Hugging Face's layout, bit by bit.

    Where the types differ, the first model's values are rounded to the second's type (compare the
    original with what was converted, in this order). Values that are not finite are problems too.
    """
    result = Comparison()
    for attribute in fields(first.config):
        one, other = getattr(first.config, attribute.name), getattr(second.config, attribute.name)
        if one != other and attribute.name not in _COMPARED_FIELDS:
            result.problems.append(f"config: {attribute.name} is {one} in the first, {other} in the second")
    names = list(first.tensors)
    for name in names:
        if name not in second.tensors:
            result.problems.append(f"{name}: missing in the second")
    result.problems += [f"{name}: missing in the first" for name in second.tensors if name not in first.tensors]
    common = [name for name in names if name in second.tensors]
    with ThreadPoolExecutor(workers) as pool:
        for problems in pool.map(lambda name: _compare(name, first, second, report), common):
            result.problems += problems
    result.tensors = len(common)
    result.parameters = sum(second.tensors[name].nbytes // second.tensors[name].dtype.itemsize for name in common)
    result.casts = sum(first.tensors[name].dtype is not second.tensors[name].dtype for name in common)
    return result


def _compare(name: str, first: Source, second: Source, report: Report) -> list[str]:
    one, other = first.tensors[name], second.tensors[name]
    if one.shape != other.shape:
        return [f"{name}: shape {list(one.shape)} in the first, {list(other.shape)} in the second"]
    rounded = in_dtype(one, other.dtype)
    different, worst, odd = 0, 0.0, 0
    step = max(1, BLOCK // max(1, other.row_bytes * other.granule)) * other.granule
    for start in range(0, other.shape[0], step):
        stop = min(start + step, other.shape[0])
        a, b = _bits(rounded.read(start, stop), other.dtype), _bits(other.read(start, stop), other.dtype)
        odd += _not_finite(b, other.dtype)
        if not np.array_equal(a, b):
            different += int(np.count_nonzero(a != b))
            worst = max(worst, _largest_difference(a, b, other.dtype))
        report(b.nbytes)
    problems = []
    if odd:
        problems.append(f"{name}: {odd} values are not finite")
    if different:
        reason = _explain(name, first, other)
        count = other.nbytes // other.dtype.itemsize
        problems.append(f"{name}: {different} of {count} values differ, by up to {worst:.3g}{reason}")
    return problems


def _bits(values: Array, dtype: DType) -> Array:
    return values.view(np.uint32 if dtype is FP32 else np.uint16)


def _not_finite(bits: Array, dtype: DType) -> int:
    exponent = bits.dtype.type(_EXPONENTS[dtype])
    return int(np.count_nonzero((bits & exponent) == exponent))


def _largest_difference(a: Array, b: Array, dtype: DType) -> float:
    one, other = (cast(bits.view(dtype.numpy), dtype, FP32) for bits in (a, b))
    with np.errstate(invalid="ignore", over="ignore"):
        return float(np.nanmax(np.abs(one - other), initial=0.0))


def _explain(name: str, first: Source, found: Tensor) -> str:
    """What the second model's tensor looks like instead, for the mistakes that converters make."""
    head_dim = first.config.head_dim

    def sample(tensor: Tensor) -> Array:
        return in_dtype(tensor, found.dtype).read(0, min(head_dim, tensor.shape[0]))

    guesses: list[tuple[str, Callable[[], Array]]] = []
    one = first.tensors[name]
    if layouts.QUERY_OR_KEY.search(name):
        guesses.append(
            ("Meta's Q/K permutation is missing", lambda: sample(HeadsPermuted(one, head_dim, to_meta=True)))
        )
        guesses.append(
            ("the Q/K permutation was applied twice", lambda: sample(HeadsPermuted(one, head_dim, to_meta=False)))
        )
    if "gate_proj" in name or "up_proj" in name:
        swapped = name.replace("gate_proj", "up_proj") if "gate_proj" in name else name.replace("up_proj", "gate_proj")
        guesses.append(("gate and up are swapped", lambda: sample(first.tensors[swapped])))
    if len(one.shape) == 2 and one.shape[0] == one.shape[1]:
        rows = min(head_dim, one.shape[0])
        guesses.append(("transposed", lambda: _columns(in_dtype(one, found.dtype), rows)))
    actual = sample(found)
    for reason, guess in guesses:
        if np.array_equal(_bits(guess(), found.dtype), _bits(actual, found.dtype)):
            return f" ({reason})"
    return ""


def _columns(tensor: Tensor, count: int) -> Array:
    """The first `count` columns as rows."""
    return np.ascontiguousarray(np.concatenate([block[:, :count] for block in tensor.blocks()]).T)
