"""A Llama 3 forward pass in fp32 with numpy alone, one matrix in memory at a time.

Slow, and the same everywhere: what a framework computes from converted weights is held against it.
Follows the published architecture: RMSNorm, rotary embedding (neighbouring halves, as Hugging Face
stores them), grouped-query attention, SwiGLU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from common.weights import layouts
from common.weights.config import LlamaConfig
from common.weights.dtypes import FP32
from common.weights.source import Source
from common.weights.tensors import Tensor, in_dtype

Floats = npt.NDArray[Any]  # float32 throughout
PROMPT_LENGTH = 16


def prompts(config: LlamaConfig) -> list[list[int]]:
    """Fixed prompts: ordinary ids spread over the vocabulary, after the bos id."""
    ordinary = max(1, config.vocab_size - 256)
    strides = (1, 7919, 104729)
    return [
        [config.bos_token_id, *((3 + stride * i) % ordinary for i in range(1, PROMPT_LENGTH))] for stride in strides
    ]


def logits(source: Source, ids: Sequence[int]) -> Floats:
    """The logits of every position of `ids`, [tokens, vocabulary], in fp32."""
    config, weights = source.config, source.tensors
    table = weights[layouts.EMBEDDING]
    state = np.concatenate([in_dtype(table, FP32).read(number, number + 1) for number in ids])
    cosine, sine = _rotary(config, len(ids))
    for layer in range(config.num_hidden_layers):
        prefix = f"model.layers.{layer}."
        normal = _normal(state, weights[prefix + "input_layernorm.weight"], config)
        state = state + _attention(normal, weights, prefix + "self_attn.", config, cosine, sine)
        normal = _normal(state, weights[prefix + "post_attention_layernorm.weight"], config)
        gate = _project(normal, weights[prefix + "mlp.gate_proj.weight"])
        gate = gate / (1.0 + np.exp(-gate))
        gate *= _project(normal, weights[prefix + "mlp.up_proj.weight"])
        state = state + _project(gate, weights[prefix + "mlp.down_proj.weight"])
    state = _normal(state, weights["model.norm.weight"], config)
    return _project(state, weights.get(layouts.HEAD, table))


def largest_difference(first: Source, second: Source) -> float:
    """The largest difference between two models' logits on the fixed prompts."""
    return max(float(np.abs(logits(first, ids) - logits(second, ids)).max()) for ids in prompts(first.config))


def _project(state: Floats, weight: Tensor) -> Floats:
    """x Wᵀ, W read in blocks of rows."""
    return np.concatenate([state @ block.T for block in in_dtype(weight, FP32).blocks()], axis=1)


def _normal(state: Floats, weight: Tensor, config: LlamaConfig) -> Floats:
    scale: Floats = in_dtype(weight, FP32).read(0, weight.shape[0])
    mean = np.mean(np.square(state), axis=-1, keepdims=True)
    normal: Floats = state / np.sqrt(mean + np.float32(config.rms_norm_eps)) * scale
    return normal


def _attention(
    state: Floats, weights: dict[str, Tensor], prefix: str, config: LlamaConfig, cosine: Floats, sine: Floats
) -> Floats:
    length, heads, keys = len(state), config.num_attention_heads, config.num_key_value_heads

    def split(name: str, count: int) -> Floats:
        return _project(state, weights[f"{prefix}{name}.weight"]).reshape(length, count, -1).swapaxes(0, 1)

    query = _rotate(split("q_proj", heads), cosine, sine)
    key = np.repeat(_rotate(split("k_proj", keys), cosine, sine), heads // keys, axis=0)
    value = np.repeat(split("v_proj", keys), heads // keys, axis=0)
    scores = query @ key.swapaxes(1, 2) / np.float32(math.sqrt(config.head_dim))
    scores = np.where(np.tri(length, dtype=bool), scores, np.float32(-np.inf))
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    mixed = (scores / scores.sum(axis=-1, keepdims=True)) @ value
    return _project(mixed.swapaxes(0, 1).reshape(length, -1), weights[f"{prefix}o_proj.weight"])


def _rotate(heads: Floats, cosine: Floats, sine: Floats) -> Floats:
    half = heads.shape[-1] // 2
    turned = np.concatenate([-heads[..., half:], heads[..., :half]], axis=-1)
    rotated: Floats = heads * cosine + turned * sine
    return rotated


def _rotary(config: LlamaConfig, length: int) -> tuple[Floats, Floats]:
    exponents = np.arange(0, config.head_dim, 2, dtype=np.float32) / np.float32(config.head_dim)
    frequencies = (1.0 / np.float32(config.rope_theta) ** exponents).astype(np.float32)
    if config.rope_scaling is not None:
        frequencies = _scaled(frequencies, config)
    angles = np.outer(np.arange(length, dtype=np.float32), frequencies)
    angles = np.concatenate([angles, angles], axis=-1)
    return np.cos(angles), np.sin(angles)


def _scaled(frequencies: Floats, config: LlamaConfig) -> Floats:
    """Llama 3.1's rescaling (model.py of meta-llama/llama-models, apply_scaling)."""
    rope = config.rope_scaling or {}
    original = rope["original_max_position_embeddings"]
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    lengths = 2 * math.pi / frequencies
    smooth = np.clip((original / lengths - low) / (high - low), 0.0, 1.0)
    blended = (1 - smooth) * frequencies / rope["factor"] + smooth * frequencies
    scaled: Floats = blended.astype(np.float32)
    return scaled
