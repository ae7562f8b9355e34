"""A run directory as a run leaves it, from real formats: tiny weights, prepared data, an adapter, a plan."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from common import environment
from common.data.options import Options
from common.data.prepare import prepare
from common.weights import tiny

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


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RUN with weights/, model/, adapter/, data/ and plan.yaml; never written to by a test."""
    run = tmp_path_factory.mktemp("generate") / "run"
    prepared(run, "human_assistant", system=SYSTEM)
    tiny.make(run / "weights", seed=3, dtype="fp32")
    tiny.make(run / "model", seed=4, dtype="fp32")
    write_adapter(run / "adapter", run / "weights")
    plan = {
        "recipe": "fsdp_qlora_70b",
        "platform": "cpu",
        "settings": {"model": {"dtype": "float32", "quantized": False}},
        "config": {"model": {"quantized": False}},
        "environment": {"OMP_NUM_THREADS": "1"},
        "python": str(run / "no" / "such" / "python"),
    }
    (run / "plan.yaml").write_text(yaml.safe_dump(plan), encoding="utf-8")
    return run


@pytest.fixture(scope="session")
def ask() -> Ask:
    """`python -m common.evaluation generate` with these arguments."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "common.evaluation", "generate", *map(str, arguments)]
        variables = {**os.environ, "PYTHONPATH": str(environment.ROOT)}
        return subprocess.run(command, capture_output=True, text=True, env=variables, cwd=environment.ROOT)

    return run


@pytest.fixture(scope="session")
def torch_python() -> Path:
    """A Python with torch, transformers and peft: LLAMA3_TORCH_PYTHON, or of a recipe's environment that is there."""
    if named := os.environ.get("LLAMA3_TORCH_PYTHON"):
        return Path(named)
    for folder in sorted(environment.home().glob("*/lib/python3.*/site-packages")):
        python = folder.parents[2] / "bin" / "python"
        if python.exists() and all((folder / name).is_dir() for name in ("torch", "transformers", "peft")):
            return python
    pytest.skip("no environment with torch, transformers and peft: run a recipe once, or set LLAMA3_TORCH_PYTHON")
