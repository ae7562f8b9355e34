"""Which rows are held out for evaluation: the same ones for the same seed, however the rows arrive."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from common.data.tokens import TokenRows, concatenate


def keys(first: int, count: int, seed: int) -> npt.NDArray[np.uint64]:
    """A well-mixed number for each of the rows first, first + 1, ... (splitmix64's finalizer)."""
    with np.errstate(over="ignore"):
        x = np.arange(first, first + count, dtype=np.uint64)
        x += np.uint64((seed * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) % 2**64)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


class HoldOut:
    """Splits rows, in one pass, into those to train on and those held out: a fraction, or a count of them."""

    def __init__(self, *, fraction: float | None = None, count: int | None = None, seed: int = 0) -> None:
        self.fraction = fraction
        self.count = count
        self.seed = seed
        self._seen = 0
        self._held: TokenRows | None = None
        self._keys = np.zeros(0, dtype=np.uint64)
        self._numbers = np.zeros(0, dtype=np.int64)

    def split(self, rows: TokenRows) -> tuple[TokenRows, TokenRows | None]:
        """The rows to train on, and those held out already; a count of rows comes from `held` at the end."""
        key = keys(self._seen, len(rows), self.seed)
        numbers = np.arange(self._seen, self._seen + len(rows))
        self._seen += len(rows)
        if self.fraction is not None:
            out = key < np.uint64(min(int(self.fraction * 2.0**64), 2**64 - 1))
            return rows.select(~out), rows.select(out)
        assert self.count is not None
        # The `count` rows of the smallest keys so far stay; who is overtaken goes to training.
        every = rows if self._held is None else concatenate([self._held, rows])
        key = np.concatenate((self._keys, key))
        numbers = np.concatenate((self._numbers, numbers))
        chosen = np.zeros(len(key), dtype=np.bool_)
        chosen[np.argsort(key, kind="stable")[: self.count]] = True
        self._held, self._keys, self._numbers = every.select(chosen), key[chosen], numbers[chosen]
        return every.select(~chosen), None

    def held(self) -> TokenRows | None:
        """The rows that a count holds out, in the order of the input."""
        return self._held
