"""The loss, in fp32, as a sum over tokens; and the noise that NEFTune adds to the embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from data import IGNORE
from setup import Place


def token_loss_sum(logits: torch.Tensor, labels: torch.Tensor, place: Place, vocabulary: int) -> torch.Tensor:
    """Negative log-likelihood in nats, summed over the trained tokens: a scalar.

    logits (rows, tokens, vocabulary, or this rank's part of it), labels (rows, tokens). Labels are shifted here, once.
    ColossalAI's own loss is the mean of each micro-batch, and its sum is rounded to the dtype of the model.
    """
    logits, labels = logits[:, :-1].float(), labels[:, 1:]
    if place.tensor_group is None:
        return functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE, reduction="sum")
    from colossalai.shardformer.layer.loss import cross_entropy_1d

    return cross_entropy_1d(
        logits.flatten(0, 1),
        labels.flatten(),
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
