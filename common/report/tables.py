"""A table of a report, as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SPLIT_NAMES = {"train": "training", "eval": "held out"}


@dataclass(frozen=True)
class Table:
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

    def with_column(self, head: str, values: Sequence[str]) -> Table:
        """The table with one column more, at the right."""
        return Table((*self.head, head), [(*row, value) for row, value in zip(self.rows, values, strict=True)])
