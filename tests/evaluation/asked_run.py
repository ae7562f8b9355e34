"""What a run leaves, from real formats: prepared data and an adapter."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from common.data.options import Options
from common.data.prepare import prepare

CONVERSATIONS = [
    [("user", "How many hours are in a week?"), ("assistant", "168.")],
    [("system", "Answer with one word."), ("user", "  What is the capital of Spain?\n"), ("assistant", "Madrid.")],
    [("user", "Hi!"), ("assistant", "Hello."), ("user", "为什么天空是蓝的？ <|eot_id|>"), ("assistant", "散射。")],
]
RANK = 4
SYSTEM = "You are helpful."

Ask = Callable[..., "subprocess.CompletedProcess[str]"]


def messages(turns: list[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in turns]


def prepared(folder: Path, template: str, system: str | None = None) -> Path:
    """Training data of CONVERSATIONS, with every prompt written to prompts.jsonl."""
    folder.mkdir(parents=True)
    lines = "".join(json.dumps({"messages": messages(turns)}) + "\n" for turns in CONVERSATIONS)
    (folder / "input.jsonl").write_text(lines, encoding="utf-8")
    prepare(
        Options(
            input=str(folder / "input.jsonl"),
            output=folder / "data",
            tokenizer="tiny",
            template=template,
            source="messages",
            system=system,
            prompts=len(CONVERSATIONS),
        )
    )
    return folder / "data"


def write_adapter(folder: Path, base: Path) -> None:
    """A LoRA adapter on every q_proj that changes what the tiny model answers."""
    folder.mkdir()
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    hidden, random = config["hidden_size"], np.random.default_rng(1)
    tensors = {}
    for layer in range(config["num_hidden_layers"]):
        name = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        tensors[f"{name}.lora_A.weight"] = random.normal(size=(RANK, hidden)).astype(np.float32)
        tensors[f"{name}.lora_B.weight"] = random.normal(size=(hidden, RANK)).astype(np.float32)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    content = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base),
        "r": RANK,
        "lora_alpha": 8,
        "lora_dropout": 0.0,
        "target_modules": ["q_proj"],
        "bias": "none",
    }
    (folder / "adapter_config.json").write_text(json.dumps(content), encoding="utf-8")
