"""Tensors made of other tensors' rows and columns, computed block by block."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common.weights.dtypes import FP32, Array, cast
from common.weights.tensors import Extent, Tensor, in_dtype


class Rows(Tensor):
    """Rows `start` to `stop` of another tensor."""

    def __init__(self, source: Tensor, start: int, stop: int) -> None:
        self.dtype = source.dtype
        self.shape = (stop - start, *source.shape[1:])
        self.granule = source.granule
        self._source, self._start = source, start

    def read(self, start: int, stop: int) -> Array:
        return self._source.read(self._start + start, self._start + stop)

    def extents(self) -> tuple[Extent, ...] | None:
        whole = self._source.extents()
        if whole is None:
            return None
        begin, end = self._start * self.row_bytes, (self._start + self.shape[0]) * self.row_bytes
        parts, position = [], 0
        for extent in whole:
            first, last = max(begin, position), min(end, position + extent.length)
            if first < last:
                parts.append(Extent(extent.file, extent.offset + first - position, last - first))
            position += extent.length
        return tuple(parts)


class Stacked(Tensor):
    """Tensors of equal width, one below the other."""

    def __init__(self, parts: Sequence[Tensor]) -> None:
        self.dtype = parts[0].dtype
        self.shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
        self.granule = parts[0].granule
        self._parts = tuple(parts)

    def read(self, start: int, stop: int) -> Array:
        blocks, position = [], 0
        for part in self._parts:
            first, last = max(start, position), min(stop, position + part.shape[0])
            if first < last:
                blocks.append(part.read(first - position, last - position))
            position += part.shape[0]
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)

    def extents(self) -> tuple[Extent, ...] | None:
        joined: list[Extent] = []
        for part in self._parts:
            extents = part.extents()
            if extents is None:
                return None
            joined.extend(extents)
        return tuple(joined)


class Columns(Tensor):
    """Columns `start` to `stop` of a matrix."""

    def __init__(self, source: Tensor, start: int, stop: int) -> None:
        self.dtype = source.dtype
        self.shape = (source.shape[0], stop - start)
        self._source, self._start, self._stop = source, start, stop

    def read(self, start: int, stop: int) -> Array:
        return np.ascontiguousarray(self._source.read(start, stop)[:, self._start : self._stop])


class SideBySide(Tensor):
    """Matrices of equal height, next to each other."""

    def __init__(self, parts: Sequence[Tensor]) -> None:
        self.dtype = parts[0].dtype
        self.shape = (parts[0].shape[0], sum(part.shape[1] for part in parts))
        self._parts = tuple(parts)

    def read(self, start: int, stop: int) -> Array:
        return np.concatenate([part.read(start, stop) for part in self._parts], axis=1)


class HeadsPermuted(Tensor):
    """A query or key projection with each head's rows reordered between Meta's layout and Hugging Face's.

    Meta rotates neighbouring rows (2i, 2i + 1) of a head together, Hugging Face rows i and
    i + head_dim / 2. The same permutation holds for every head.
    """

    def __init__(self, source: Tensor, head_dim: int, *, to_meta: bool) -> None:
        self.dtype = source.dtype
        self.shape = source.shape
        self.granule = head_dim
        self._source = source
        self._halves = (2, head_dim // 2) if to_meta else (head_dim // 2, 2)

    def read(self, start: int, stop: int) -> Array:
        first = start - start % self.granule
        last = min(stop + -stop % self.granule, self.shape[0])
        rows = self._source.read(first, last)
        heads = rows.reshape(-1, *self._halves, self.shape[1])
        permuted = heads.swapaxes(1, 2).reshape(rows.shape)
        return np.ascontiguousarray(permuted[start - first : stop - first])


class Alternating(Tensor):
    """Rows of tensors of equal shape in turn: first row of each, second row of each, ..."""

    def __init__(self, parts: Sequence[Tensor]) -> None:
        self.dtype = parts[0].dtype
        self.shape = (len(parts) * parts[0].shape[0], *parts[0].shape[1:])
        self.granule = len(parts)
        self._parts = tuple(parts)

    def read(self, start: int, stop: int) -> Array:
        count = len(self._parts)
        first, last = start // count, -(-stop // count)
        rows = np.stack([part.read(first, last) for part in self._parts], axis=1)
        rows = rows.reshape(count * (last - first), *self.shape[1:])
        return np.ascontiguousarray(rows[start - first * count : stop - first * count])


class EveryNth(Tensor):
    """Rows `first`, `first` + `step`, ... of another tensor."""

    def __init__(self, source: Tensor, first: int, step: int) -> None:
        self.dtype = source.dtype
        self.shape = (len(range(first, source.shape[0], step)), *source.shape[1:])
        self._source, self._first, self._step = source, first, step

    def read(self, start: int, stop: int) -> Array:
        begin = self._first + start * self._step
        end = self._first + (stop - 1) * self._step + 1
        return np.ascontiguousarray(self._source.read(begin, end)[:: self._step])


class Merged(Tensor):
    """A weight with a low-rank update added: W + scale · B A, computed in fp32, rounded once.

    Shapes: W [out, in], A [rank, in], B [out, rank].
    """

    def __init__(self, base: Tensor, lora_a: Tensor, lora_b: Tensor, scale: float) -> None:
        self.dtype = base.dtype
        self.shape = base.shape
        self._base, self._a, self._b = base, lora_a, lora_b
        self._scale = np.float32(scale)

    def read(self, start: int, stop: int) -> Array:
        # A is read anew for every block: held, those of a whole model are hundreds of megabytes.
        a = cast(self._a.read(0, self._a.shape[0]), self._a.dtype, FP32)
        update = cast(self._b.read(start, stop), self._b.dtype, FP32) @ a
        update *= self._scale
        update += cast(self._base.read(start, stop), self._base.dtype, FP32)
        return cast(update, FP32, self.dtype)


class RowsReplaced(Tensor):
    """A matrix with some rows exchanged for those of `values`: row `rows[i]` for row i, rounded to its type."""

    def __init__(self, base: Tensor, rows: Sequence[int], values: Tensor) -> None:
        self.dtype = base.dtype
        self.shape = base.shape
        self.granule = base.granule
        self._base, self._values = base, in_dtype(values, base.dtype)
        self._places = {row: place for place, row in enumerate(rows)}

    def read(self, start: int, stop: int) -> Array:
        block = self._base.read(start, stop).copy()
        for row, place in self._places.items():
            if start <= row < stop:
                block[row - start] = self._values.read(place, place + 1)[0]
        return block
