"""Prepared rows as batches."""

from __future__ import annotations

import torch


class Collator:
    """Rows of any length as one batch, padded on the right. Shapes (rows, longest row), int64.

    There is no attention mask: attention is limited by position_ids, which restart at 0 with every
    document; transformers derives the block-diagonal causal mask from them. The padding is one more
    document. Its labels are -100.
    """

    def __init__(self, pad_id: int) -> None:
        self.pad_id = pad_id

    def __call__(self, rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        longest = max(len(row["input_ids"]) for row in rows)
        batch: dict[str, list[list[int]]] = {"input_ids": [], "labels": [], "position_ids": []}
        for row in rows:
            missing = longest - len(row["input_ids"])
            batch["input_ids"].append(row["input_ids"] + [self.pad_id] * missing)
            batch["labels"].append(row["labels"] + [-100] * missing)
            batch["position_ids"].append(row["position_ids"] + list(range(missing)))
        return {name: torch.tensor(values, dtype=torch.long) for name, values in batch.items()}
