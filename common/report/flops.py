"""Model FLOPs: the one formula that every MFU of this project is computed with."""

from __future__ import annotations

import math
from dataclasses import dataclass

from common.weights.config import LlamaConfig, tensor_shapes

EMBEDDINGS = "model.embed_tokens.weight"
MINIMUM_STEPS = 1  # left out of throughput, whatever the share says
WARM_UP_SHARE = 10  # one step of this many


@dataclass(frozen=True)
class ModelSize:
    """What the formula needs to know of a model."""

    parameters: int
    """All of them, as stored."""
    multiplied: int
    """N: those that every token is multiplied with. Looking up an embedding multiplies nothing."""
    layers: int
    """L"""
    width: int
    """H: attention heads times head dimension."""


def model_size(config: LlamaConfig) -> ModelSize:
    """The size of the model that `config` describes; tied embeddings count once, as the output head."""
    counts = {name: math.prod(shape) for name, shape in tensor_shapes(config).items()}
    total = sum(counts.values())
    looked_up = 0 if config.tie_word_embeddings else counts[EMBEDDINGS]
    width = config.num_attention_heads * config.head_dim
    return ModelSize(total, total - looked_up, config.num_hidden_layers, width)


def flops_per_token(size: ModelSize, sequence_length: float, *, frozen: bool = False, adapter: int = 0) -> float:
    """FLOPs of forward and backward for one token.

    6N + 12·L·H·S: two for each of N weights forward, four backward (Kaplan et al. 2020, arXiv
    2001.08361); attention's scores and sums over S positions (Chowdhery et al. 2022, PaLM, arXiv
    2204.02311, appendix B), counted in full, not halved for the causal mask nor for the borders of
    packed documents. A frozen weight (LoRA) has no gradient of its own: 4N, and 6 for each of `adapter`
    trained ones. What activation checkpointing computes again does not count.
    """
    trained = (4 * size.multiplied + 6 * adapter) if frozen else 6 * size.multiplied
    return trained + 12 * size.layers * size.width * sequence_length


def mfu(tokens_per_second: float, flops: float, devices: int, peak_tflops: float) -> float:
    """The share, 0 to 1, of the peak of `devices` devices (`peak_tflops` each, 10^12 FLOP/s) that was used."""
    return tokens_per_second * flops / (devices * peak_tflops * 1e12)


def warm_up_steps(steps: int) -> int:
    """How many of the first `steps` are left out of throughput: a tenth, at least the first."""
    return max(MINIMUM_STEPS, steps // WARM_UP_SHARE)
