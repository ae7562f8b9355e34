"""Tensors that stay on disk: what they are, where their bytes lie, and their rows on demand."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from common.errors import RunError, UserError
from common.weights.dtypes import DTYPES, Array, DType, cast

BLOCK = 8 * 2**20  # bytes read at once; a few of these are all the memory a conversion needs


@dataclass(frozen=True)
class Extent:
    """Consecutive bytes of a file."""

    file: Path
    offset: int
    length: int


class Tensor(ABC):
    """A vector or a matrix ([out, in]) that is read row by row; the rows of a vector are its elements."""

    dtype: DType
    shape: tuple[int, ...]
    granule: int = 1  # rows that are best read together

    @abstractmethod
    def read(self, start: int, stop: int) -> Array:
        """Rows `start` to `stop`, shape [stop - start, ...], in `dtype` (bf16 as uint16 bits), contiguous."""

    def extents(self) -> tuple[Extent, ...] | None:
        """Where the tensor's bytes lie as they are, in order; None when they must be computed."""
        return None

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return prod(self.shape[1:]) * self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of the whole tensor."""
        return prod(self.shape) * self.dtype.itemsize

    def blocks(self, size: int = BLOCK) -> Iterator[Array]:
        """The tensor in order, in blocks of whole rows of about `size` bytes."""
        step = max(1, size // max(1, self.row_bytes * self.granule)) * self.granule
        for start in range(0, self.shape[0], step):
            yield self.read(start, min(start + step, self.shape[0]))


@dataclass(frozen=True)
class RawTensor:
    """An entry of a weights file as its header states it, of any type; nothing of it has been read."""

    name: str
    dtype_name: str  # in the file's own words
    dtype: DType | None  # None for a type that weights do not have: counters, optimizer state, quantized values
    shape: tuple[int, ...]
    extents: tuple[Extent, ...]
    strides: tuple[int, ...] | None = None  # elements; None where the rows follow each other

    def open(self) -> Tensor:
        """The tensor. Raises UserError for a type that weights do not have."""
        if self.dtype is None:
            raise UserError(
                f"tensor {self.name!r} has a dtype that Llama 3 weights do not have",
                file=self.extents[0].file if self.extents else None,
                found=self.dtype_name,
                expected=", ".join(DTYPES),
                hint="quantized weights cannot be converted: take the original model",
            )
        if self.strides is not None:
            return Strided(self.dtype, self.shape, self.strides, self.extents[0])
        return Stored(self.dtype, self.shape, self.extents)


class Stored(Tensor):
    """A tensor whose bytes lie in files, row by row, in one or more extents that follow each other."""

    def __init__(self, dtype: DType, shape: tuple[int, ...], extents: tuple[Extent, ...]) -> None:
        self.dtype = dtype
        self.shape = shape
        self._extents = extents

    def extents(self) -> tuple[Extent, ...]:
        return self._extents

    def read(self, start: int, stop: int) -> Array:
        begin, end = start * self.row_bytes, stop * self.row_bytes
        content = np.empty(end - begin, np.uint8)
        view = content.data
        filled = 0
        position = 0
        for extent in self._extents:
            first, last = max(begin, position), min(end, position + extent.length)
            if first < last:
                read_exactly(extent.file, extent.offset + first - position, view[filled : filled + last - first])
                filled += last - first
            position += extent.length
        return content.view(self.dtype.numpy).reshape(stop - start, *self.shape[1:])


class Strided(Tensor):
    """A matrix whose rows do not follow each other in `extent`: transposed, or some columns of a wider one.

    `strides` count elements; one of the two is 1.
    """

    def __init__(self, dtype: DType, shape: tuple[int, ...], strides: tuple[int, ...], extent: Extent) -> None:
        self.dtype = dtype
        self.shape = shape
        self._strides = strides
        self._extent = extent

    def read(self, start: int, stop: int) -> Array:
        height, width = stop - start, self.shape[1]
        by_row = self._strides[1] == 1
        runs = np.empty((height, width) if by_row else (width, height), self.dtype.numpy)
        step = self._strides[0 if by_row else 1]
        for number, run in enumerate(runs):
            position = start * self._strides[0] + number * step
            offset = self._extent.offset + position * self.dtype.itemsize
            read_exactly(self._extent.file, offset, run.view(np.uint8).data)
        return runs if by_row else np.ascontiguousarray(runs.T)


class Held(Tensor):
    """A tensor in memory, for small ones."""

    def __init__(self, dtype: DType, values: Array) -> None:
        self.dtype = dtype
        self.shape = values.shape
        self._values = values

    def read(self, start: int, stop: int) -> Array:
        return np.ascontiguousarray(self._values[start:stop])


class Cast(Tensor):
    """Another tensor in another type, rounded to nearest even."""

    def __init__(self, source: Tensor, dtype: DType) -> None:
        self.dtype = dtype
        self.shape = source.shape
        self._source = source

    def read(self, start: int, stop: int) -> Array:
        return cast(self._source.read(start, stop), self._source.dtype, self.dtype)


def in_dtype(tensor: Tensor, dtype: DType) -> Tensor:
    """`tensor` itself when it is of type `dtype`, else its cast."""
    return tensor if tensor.dtype is dtype else Cast(tensor, dtype)


def read_exactly(file: Path, offset: int, target: memoryview) -> None:
    """Fill `target` from byte `offset` of `file`. Raises RunError when the file ends before."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        done = 0
        while done < len(target):
            count = os.preadv(descriptor, [target[done:]], offset + done)
            if count == 0:
                raise RunError("the file became shorter while it was read", file=file, expected=f"{len(target)} bytes")
            done += count
    finally:
        os.close(descriptor)
