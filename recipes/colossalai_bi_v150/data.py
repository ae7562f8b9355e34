"""Prepared rows as the batches of each optimizer step: the same rows for a step, whatever happened before it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import load_from_disk

from common.errors import UserError

IGNORE = -100


@dataclass(frozen=True)
class StepBatch:
    """One rank's rows of one optimizer step, and what all ranks have together."""

    micro_batches: list[dict[str, torch.Tensor]]
    """input_ids and labels, each (rows, tokens) int64; labels are not shifted."""
    trained: int
    """Tokens that count in the loss, over all ranks."""
    tokens: int
    padded_tokens: int


def open_rows(folder: Path, max_rows: int | None) -> Any:
    """The prepared rows in `folder`, the first `max_rows` of them. Raises UserError for packed rows and for none."""
    if max_rows is not None and max_rows < 1:
        raise UserError("config.data.max_rows leaves no row", found=max_rows, expected="1 or more, or null for all")
    meta = json.loads((folder.parent / "meta.json").read_text(encoding="utf-8"))
    if meta.get("packing", "none") != "none":
        raise UserError("packed rows need attention that ends with each document", file=folder, found=meta["packing"])
    rows = load_from_disk(str(folder)).with_format("numpy", columns=["input_ids", "labels"])
    return rows if max_rows is None else rows.select(range(min(max_rows, len(rows))))


class Batches:
    """Rows in an order drawn anew for each epoch. A step's rows follow from its number alone: resuming is exact.

    Epochs follow each other without a gap, so that no row is left out where an epoch is no multiple of a batch.
    Rows are padded on the right and there is no attention mask: causal attention never looks to the right, and the
    labels of the padding are ignored. So no token of a text, such as its end tokens, can be masked by accident.
    """

    def __init__(
        self,
        rows: Any,
        *,
        pad_id: int,
        micro_batch_size: int,
        accumulation: int,
        data_rank: int,
        data_size: int,
        seed: int | None,
        max_length: int | None,
        multiple: int,
        together: bool,
    ) -> None:
        """`seed`: of the order; None keeps the rows' own. `max_length`: pad to it, or to the longest where None.

        `together`: all rows of a rank's step are equally long.
        """
        self.rows = rows
        self.pad_id = pad_id
        self.micro_batch_size = micro_batch_size
        self.accumulation = accumulation
        self.data_rank = data_rank
        self.data_size = data_size
        self.seed = seed
        self.max_length = max_length
        self.multiple = multiple
        self.together = together
        self.orders: dict[int, np.ndarray] = {}

    @property
    def global_batch_size(self) -> int:
        return self.micro_batch_size * self.accumulation * self.data_size

    def steps(self, epochs: float) -> int:
        """Optimizer steps in which every row is seen `epochs` times; the last step may begin another epoch."""
        return math.ceil(epochs * len(self.rows) / self.global_batch_size)

    def position(self, step: int) -> dict[str, int]:
        """Where the data stand after `step` steps."""
        epoch, row = divmod(step * self.global_batch_size, len(self.rows))
        return {"epoch": epoch, "step": step, "sample_start_index": row}

    def row_of(self, index: int) -> int:
        """The row at `index` of all epochs, one after the other."""
        epoch, place = divmod(index, len(self.rows))
        if epoch not in self.orders:
            if self.seed is None:
                return place
            self.orders = {epoch: np.random.default_rng([self.seed, epoch]).permutation(len(self.rows))}
        return int(self.orders[epoch][place])

    def step(self, step: int) -> StepBatch:
        """The batches of a step; the first step is 0."""
        first = step * self.global_batch_size
        numbers = [self.row_of(index) for index in range(first, first + self.global_batch_size)]
        rows = [self.rows[number] for number in numbers]
        lengths = [len(row["input_ids"]) for row in rows]
        size, count = self.micro_batch_size, self.accumulation
        mine: list[dict[str, torch.Tensor]] = []
        padded = 0
        for rank in range(self.data_size):
            begin = rank * size * count
            parts = [slice(begin + part * size, begin + (part + 1) * size) for part in range(count)]
            widths = [self.width(lengths[part]) for part in parts]
            if self.together:
                widths = [max(widths)] * count
            padded += size * sum(widths)
            if rank == self.data_rank:
                mine = [self.pad(rows[part], width) for part, width in zip(parts, widths, strict=True)]
        # The first token of a row has nothing before it that could predict it
        trained = sum(int((row["labels"][1:] != IGNORE).sum()) for row in rows)
        return StepBatch(mine, trained, sum(lengths), padded)

    def width(self, lengths: list[int]) -> int:
        longest = self.max_length or max(lengths)
        return math.ceil(longest / self.multiple) * self.multiple

    def pad(self, rows: list[dict[str, np.ndarray]], width: int) -> dict[str, torch.Tensor]:
        ids = torch.full((len(rows), width), self.pad_id, dtype=torch.long)
        labels = torch.full((len(rows), width), IGNORE, dtype=torch.long)
        for number, row in enumerate(rows):
            length = len(row["input_ids"])
            ids[number, :length] = torch.from_numpy(np.asarray(row["input_ids"], dtype=np.int64))
            labels[number, :length] = torch.from_numpy(np.asarray(row["labels"], dtype=np.int64))
        return {"input_ids": ids, "labels": labels}
