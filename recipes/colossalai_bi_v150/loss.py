"""The loss, in fp32, as a sum over tokens; and the noise that NEFTune adds to the embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from data import IGNORE
from setup import Place
from torch.utils.checkpoint import checkpoint

CHUNK = 1024  # tokens of a row whose logits are in fp32 at one time


def token_loss_sum(logits: torch.Tensor, labels: torch.Tensor, place: Place, vocabulary: int) -> torch.Tensor:
    """Negative log-likelihood in nats, summed over the trained tokens: a scalar.

    logits (rows, tokens, vocabulary, or this rank's part of it), labels (rows, tokens). Labels are shifted here, once.
    ColossalAI's own loss is the mean of each micro-batch, and its sum is rounded to the dtype of the model.
    In fp32 the logits exist a chunk of tokens at a time, forward and backward: 8192 tokens of Llama 3 would be 4 GiB.
    """
    total = torch.zeros((), dtype=torch.float32, device=logits.device)
    for part, target in zip(logits[:, :-1].split(CHUNK, 1), labels[:, 1:].split(CHUNK, 1), strict=True):
        total = total + checkpoint(chunk_loss_sum, part, target, place, vocabulary, use_reentrant=False)
    return total


def chunk_loss_sum(logits: torch.Tensor, targets: torch.Tensor, place: Place, vocabulary: int) -> torch.Tensor:
    """The sum over a chunk; `targets` are what each position is to predict."""
    flat = logits.flatten(0, 1).float()
    if place.tensor_group is None:
        return functional.cross_entropy(flat, targets.flatten(), ignore_index=IGNORE, reduction="sum")
    from colossalai.shardformer.layer.loss import cross_entropy_1d

    return cross_entropy_1d(
        flat,
        targets.flatten(),
        ignore_index=IGNORE,
        process_group=place.tensor_group,
        vocab_size=vocabulary,
        dtype=torch.float32,
        mode="sum",
    )


class Noise:
    """NEFTune (arXiv 2310.05914): uniform noise on the embeddings, up to alpha / sqrt(tokens x width).

    Drawn from the seed, the step, the micro-batch and the data-parallel rank: ranks that share a row draw the same,
    and a resumed run draws what it would have drawn.
    """

    def __init__(self, alpha: float, seed: int, data_rank: int) -> None:
        self.alpha = alpha
        self.seed = seed
        self.data_rank = data_rank
        self.draws = 0
        self.step = 0

    def attach(self, model: Any) -> None:
        """Add the noise to what the embeddings of `model` give; a pipeline's later stages have none."""
        for name, module in model.named_modules():
            if name.endswith("embed_tokens") and self.alpha > 0 and getattr(module, "weight", None) is not None:
                module.register_forward_hook(self)

    def begin(self, step: int) -> None:
        self.step, self.draws = step, 0

    def __call__(self, module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor | None:
        if not module.training:
            return None
        key = mixed(self.seed, self.step, self.draws, self.data_rank)
        generator = torch.Generator(output.device).manual_seed(key)
        self.draws += 1
        bound = self.alpha / (output.shape[1] * output.shape[2]) ** 0.5
        noise = torch.empty(output.shape, dtype=torch.float32, device=output.device)
        return output + noise.uniform_(-bound, bound, generator=generator).to(output.dtype)


def mixed(*numbers: int) -> int:
    """One seed of several numbers, well mixed."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
