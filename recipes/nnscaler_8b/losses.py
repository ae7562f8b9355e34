"""The loss of long rows, without all their logits in memory at once.

The logits of 128k tokens over 128,256 words are 67 GB in fp32, four times the model. Cut into chunks, whose logits
are computed again in the backward pass, only one chunk's are there at a time.
"""

from __future__ import annotations

import nnscaler
import torch
import torch.nn.functional as functional
from torch.utils.checkpoint import checkpoint

IGNORE = -100


def _losses(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    logits = functional.linear(hidden, weight).float()
    return functional.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none")


@nnscaler.register_op("r t h^, v^ h^, r t -> r t")  # rows and tokens may be split over devices, the rest not
def chunked_losses(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, chunk: int) -> torch.Tensor:
    """Each token's loss in nats, fp32; 0 where the label is -100.

    hidden: (rows, tokens, width); weight: (words, width); labels: (rows, tokens). `chunk` counts tokens.
    """
    flat, targets = hidden.flatten(0, 1), labels.flatten()
    parts = [
        checkpoint(_losses, part, weight, target, use_reentrant=False)
        for part, target in zip(flat.split(chunk), targets.split(chunk), strict=True)
    ]
    return torch.cat(parts).view(labels.shape)
