"""The held-out loss of a network, computed by MindFormers' own loss function."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np

from common.data import mindrecord
from common.evaluation.perplexity import LossSum


def held_out_loss(network: Any, data: Path, *, seq_length: int, pad_id: int, rows_at_once: int) -> LossSum:
    """The loss over all rows of the prepared data in `data`, each position predicting the next one.

    The network's loss is a mean over its trained tokens; every batch has the same shape, so that it is
    compiled once: the last one is filled up with rows that are not trained.
    """
    total, tokens = 0.0, 0
    for ids, labels in batches(data, seq_length + 1, pad_id, rows_at_once):
        inputs, targets = ids[:, :-1], labels[:, 1:]
        logits, _, mask = network(ms.Tensor(inputs), ms.Tensor(labels[:, :-1]))
        trained = ((targets != mindrecord.IGNORE) & (inputs != pad_id)).astype(np.float32)
        size = logits.shape[-1]
        flat = ms.Tensor(np.where(targets == mindrecord.IGNORE, 0, targets).reshape(-1))
        mean = network.loss(logits.reshape(-1, size), flat, ms.Tensor(trained.reshape(-1)))
        count = int(trained.sum())
        total += float(mean.asnumpy().reshape(-1)[0]) * count
        tokens += count
        del mask
    return LossSum(total, tokens)


def batches(data: Path, length: int, pad_id: int, rows_at_once: int) -> Any:
    """Batches (ids, labels), int32 [rows_at_once, length] each."""
    held: list[tuple[Any, Any]] = []
    for ids, labels in mindrecord.padded(data, length, pad_id):
        held += zip(ids, labels, strict=True)
        while len(held) >= rows_at_once:
            yield tuple(np.stack(side) for side in zip(*held[:rows_at_once], strict=True))
            del held[:rows_at_once]
    if held:
        blank = (held[0][0], np.full(length, mindrecord.IGNORE, np.int32))
        held += [blank] * (rows_at_once - len(held))
        yield tuple(np.stack(side) for side in zip(*held, strict=True))
