"""Jobs for the tests of the memory model, as recipes would state them."""

from __future__ import annotations

from typing import Any

from common.memory import job, sizes
from common.memory.job import Job
from common.recipe import MemoryModel
from common.settings import Settings
from common.weights.config import LlamaConfig

FSDP = {"sharding": "fsdp", "trained_dtype": "float32", "loading": "layer"}
# AdamW with fp32 moments and fp32 copies of bf16 weights
MASTERS = {"sharding": "zero", "master_weights": True}

SMALL = LlamaConfig(
    hidden_size=512,
    intermediate_size=1536,
    num_hidden_layers=4,
    num_attention_heads=8,
    num_key_value_heads=2,
    vocab_size=16000,
    head_dim=64,
)


def make(
    model: str | LlamaConfig,
    framework: dict[str, Any],
    settings: dict[str, dict[str, Any]],
    *,
    devices: int,
    nodes: int = 1,
) -> Job:
    """`settings` as in recipe.yaml, {"train": {"micro_batch_size": 1}, ...}."""
    config = sizes.find(model) if isinstance(model, str) else model
    read = Settings.model_validate(settings)
    return job.make(config, read, MemoryModel.model_validate(framework), nodes, devices)


def training(length: int, **more: Any) -> dict[str, dict[str, Any]]:
    """bf16, batch 1, every layer computed again; `more` by section, quantized=True and lora=rank for short."""
    lora, quantized, offload = more.pop("lora", None), more.pop("quantized", False), more.pop("offload", False)
    return {
        "model": {"dtype": more.pop("dtype", "bfloat16"), "quantized": quantized},
        "data": {"max_length": length},
        "train": {"micro_batch_size": 1, "gradient_accumulation_steps": 1, "gradient_checkpointing": True}
        | more.pop("train", {}),
        "lora": {"rank": lora, "targets": "all-linear", "dropout": more.pop("dropout", 0.0)} if lora else {},
        "parallel": {"cpu_offload": offload, **more.pop("parallel", {})},
    }
