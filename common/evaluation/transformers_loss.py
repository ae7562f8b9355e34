"""Held-out loss with transformers. Imports torch where it is used: common works without it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

POSITIONS_AT_ONCE = 512  # of the logits turned to fp32: 512 x 128,256 x 4 bytes are 250 MiB
IGNORE = -100


def losses(model: Any, documents: list[list[list[int]]], pad_id: int, batch_size: int) -> Iterator[tuple[float, int]]:
    """For each batch of documents ([ids, labels], labels not shifted): nats summed over its trained tokens, and these.

    Documents are padded on the right; what stands there is neither seen nor counted.
    """
    import torch
    from torch.nn import functional

    device = next(model.parameters()).device
    for start in range(0, len(documents), batch_size):
        batch = documents[start : start + batch_size]
        width = max(len(ids) for ids, _ in batch)
        ids = torch.tensor([ids + [pad_id] * (width - len(ids)) for ids, _ in batch], device=device)
        mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in batch], device=device)
        labels = torch.tensor([labels[1:] + [IGNORE] * (width - len(labels)) for _, labels in batch])
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
        total = 0.0
        for part, target in zip(logits.split(POSITIONS_AT_ONCE, 1), labels.split(POSITIONS_AT_ONCE, 1), strict=True):
            flat = target.flatten().to(part.device)
            total += float(functional.cross_entropy(part.flatten(0, 1).float(), flat, reduction="sum"))
        yield total, int((labels != IGNORE).sum())
