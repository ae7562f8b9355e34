"""On the golden batches, in fp32 and without quantization, this recipe's path lands on the reference curve."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import version
from pathlib import Path

from conftest import run_sh

from common import golden

FP32 = ("model.dtype=float32", "model.quantized=false", "config.sft.bf16=false")


def test_the_same_loss_as_everywhere(tmp_path: Path) -> None:
    """trl's SFTTrainer, FSDP2 over two processes, LoRA: 20 steps of the batches in common/golden."""
    prepared, run = tmp_path / "golden", tmp_path / "run"
    golden.prepare(prepared)
    settings = golden.read().settings["lora"]
    values = {
        "config.model.adapter": prepared / "adapter",
        "lora.rank": settings["rank"],
        "lora.alpha": settings["alpha"],
        "lora.dropout": 0,
        "train.learning_rate": settings["learning_rate"],
        "train.lr_scheduler": "constant",
        "train.warmup_ratio": 0,
        "train.max_grad_norm": settings["max_grad_norm"],
        "train.max_steps": golden.STEPS,
        "train.save_steps": golden.STEPS,
        "config.sft.adam_beta1": settings["betas"][0],
        "config.sft.adam_beta2": settings["betas"][1],
        "config.sft.adam_epsilon": settings["eps"],
        "config.sft.train_sampling_strategy": "sequential",
    }
    options = ["--output", run, "--model", prepared / "model"]
    for each in (*FP32, *(f"{key}={value}" for key, value in values.items())):
        options += ["--set", each]
    for stage in ("weights", "data"):
        done = run_sh(*options, "--only", stage)
        assert done.returncode == 0, done.stdout + done.stderr
    shutil.rmtree(run / "data" / "train")
    shutil.copytree(prepared / "data" / "train", run / "data" / "train")
    done = run_sh(*options, "--only", "train")
    assert done.returncode == 0, done.stdout + done.stderr

    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    compared = golden.compare("lora", [row["loss"] for row in rows])
    golden.record(run, compared, {name: version(name) for name in ("torch", "transformers", "peft", "trl")})
    assert not compared.problems, compared.problems
