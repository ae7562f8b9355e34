"""LoRA weights of a MindFormers checkpoint as an adapter in PEFT layout. Needs no framework."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from common.errors import RunError
from common.files import write_json
from common.weights import layouts, mindspore_ckpt
from common.weights.dtypes import FP32, cast

_NAME = re.compile(r"(model\.layers\.\d+\..+)\.mindpet_delta_lora_([ab])$")


def tensors(checkpoint: Path) -> dict[str, Any]:
    """The adapter's tensors (fp32) under PEFT's names. A pure rename: y = xWᵀ + (alpha/rank)·(xAᵀ)Bᵀ in both.

    A is [rank, in], B is [out, rank]. Raises RunError when the checkpoint has no LoRA weights.
    """
    found: dict[str, Any] = {}
    for name, raw in mindspore_ckpt.read(checkpoint).items():
        if match := _NAME.fullmatch(name):
            module = _module(match[1])
            values = cast(raw.open().read(0, raw.shape[0]), raw.dtype, FP32) if raw.dtype else None
            found[f"base_model.model.{module}.lora_{match[2].upper()}.weight"] = np.ascontiguousarray(values)
    if not found:
        raise RunError("the checkpoint has no LoRA weights", file=checkpoint)
    return found


def _module(name: str) -> str:
    """Hugging Face's name of a module that MindFormers calls `name`."""
    layer = re.match(r"model\.layers\.\d+\.", name)
    assert layer is not None
    for theirs in layouts.INNER:
        candidate = f"{layer[0]}{theirs}.weight"
        if layouts.name_in(layouts.MINDSPORE, candidate) == f"{name}.weight":
            return candidate.removesuffix(".weight")
    raise RunError("LoRA weights of a module that Llama 3 does not have", found=name)


def write_adapter(checkpoint: Path, folder: Path, *, rank: int, alpha: float, dropout: float, base: str) -> None:
    """Write adapter_model.safetensors and adapter_config.json into `folder`. Raises RunError as `tensors` does."""
    adapter = tensors(checkpoint)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(adapter, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    modules = sorted({name.split(".")[-3] for name in adapter})
    write_json(
        folder / "adapter_config.json",
        {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base,
            "r": rank,
            "lora_alpha": alpha,
            "lora_dropout": dropout,
            "target_modules": modules,
            "bias": "none",
            "fan_in_fan_out": False,
            "inference_mode": True,
        },
    )
