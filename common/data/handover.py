"""How a value goes from one process to another: through memory that both of them see.

A pipe takes 64 KB at a time, and each time one of the two waits for the other: measured, that costs a
fifth of the work on a block. Here the large parts of a value are copied once by each side.
"""

from __future__ import annotations

import os
import pickle
import sys
from typing import Any

import numpy as np

_SMALL = 4096  # bytes; what is smaller stays within the pickle
_KEPT = 8 * 2**20  # bytes that a place keeps for the next value

# What `put` says of a value and `get` needs: the size of each part and whether it is bytes, or the value itself.
Parts = list[tuple[int, bool]] | bytes


def size(parts: Parts) -> int:
    """Bytes."""
    return len(parts) if isinstance(parts, bytes) else sum(each for each, _ in parts)


class Place:
    """Room for one value. With `shared` it must be made before the process that it is shared with is forked."""

    def __init__(self, *, shared: bool) -> None:
        self._file = -1
        if shared and sys.platform == "linux":
            self._file = os.memfd_create("block")

    def put(self, value: Any) -> Parts:
        """Leave a value here, in place of the one before."""
        if self._file < 0:
            return pickle.dumps(value, protocol=5)
        large: list[memoryview] = []

        def keep(buffer: pickle.PickleBuffer) -> bool:
            raw = buffer.raw()
            if raw.nbytes >= _SMALL:
                large.append(raw)
            return raw.nbytes < _SMALL

        parts = [memoryview(pickle.dumps(value, protocol=5, buffer_callback=keep)), *large]
        if os.fstat(self._file).st_size > _KEPT:
            os.ftruncate(self._file, 0)
        at = 0
        for part in parts:
            written = 0
            while written < part.nbytes:
                written += os.pwrite(self._file, part[written:], at + written)
            at += part.nbytes
        return [(part.nbytes, part.readonly) for part in parts]

    def get(self, parts: Parts) -> Any:
        """The value that was put here. What could be written to before can be written to again."""
        if isinstance(parts, bytes):
            return pickle.loads(parts)  # allow L009: what our own process put there
        at = 0
        read: list[Any] = []
        for length, constant in parts:
            if constant:
                read.append(os.pread(self._file, length, at))
            else:
                read.append(np.empty(length, dtype=np.uint8))
                os.preadv(self._file, [read[-1]], at)
            at += length
        return pickle.loads(read[0], buffers=read[1:])  # allow L009: what our own process put there

    def close(self) -> None:
        """Give the memory back."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
