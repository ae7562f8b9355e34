"""Prepared rows as batches of one shape, which is what nnScaler's generated code is made for."""

from __future__ import annotations

from collections.abc import Callable

import torch

IGNORE = -100
Row = dict[str, list[int]]
Batch = dict[str, torch.Tensor]


def collator(length: int, pad_id: int, isolate: bool) -> Callable[[list[Row]], Batch]:
    """A function from rows to a batch of shape (rows, length), int64.

    Labels are shifted here, once: the label of a token is the token after it. The last row of a data set may be
    short; it is padded at its end, where causal attention lets no token see it, and padding has no labels. With
    `isolate`, a key `first` keeps documents in a row apart. A function, not an object: nnScaler copies its
    arguments deeply.
    """

    def collate(rows: list[Row]) -> Batch:
        if not rows:
            return {}
        ids, labels, positions = (torch.full((len(rows), length), value) for value in (pad_id, IGNORE, 0))
        for index, row in enumerate(rows):
            count = len(row["input_ids"])
            ids[index, :count] = torch.tensor(row["input_ids"])
            labels[index, : count - 1] = torch.tensor(row["labels"][1:])
            positions[index, :count] = torch.tensor(row["position_ids"])
            positions[index, count:] = torch.arange(length - count)
        places = torch.arange(length).expand_as(ids).contiguous()
        if not isolate:
            return {"input_ids": ids, "labels": labels, "position_ids": places}
        return {"input_ids": ids, "labels": labels, "position_ids": positions, "first": places - positions}

    return collate
