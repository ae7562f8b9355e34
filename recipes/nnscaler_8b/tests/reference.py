"""The loss by transformers alone, one document after the other: no packing, no mask, no code of the recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as functional
from datasets import load_from_disk
from torch.utils.data import DistributedSampler


def batch_of_step(run: Path, step: int, rows_a_step: int, seed: int = 0) -> list[dict[str, list[int]]]:
    """The rows of a step (from 1) of the first epoch where one rank draws them all, in torch's own order."""
    data = load_from_disk(str(run / "data" / "train"))
    order = list(DistributedSampler(data, num_replicas=1, rank=0, seed=seed))
    return [data[index] for index in order[(step - 1) * rows_a_step : step * rows_a_step]]


def next_token_loss(model: Any, rows: list[dict[str, list[int]]]) -> float:
    """Nats per trained token; each document of a row is scored by itself."""
    total, tokens = 0.0, 0
    for row in rows:
        starts = [index for index, position in enumerate(row["position_ids"]) if position == 0]
        for begin, end in zip(starts, [*starts[1:], len(row["input_ids"])], strict=True):
            ids, labels = torch.tensor([row["input_ids"][begin:end]]), torch.tensor(row["labels"][begin:end])
            with torch.no_grad():
                logits = model(ids).logits[0]
            total += float(functional.cross_entropy(logits[:-1].double(), labels[1:], reduction="sum"))
            tokens += int((labels[1:] != -100).sum())
    return total / tokens
