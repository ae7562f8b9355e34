"""On the golden batches, in fp32, this recipe's path lands on the reference curve."""

from __future__ import annotations

import shutil
from importlib.metadata import version
from pathlib import Path

from conftest import needs_nnscaler, rows, stages

from common import golden


@needs_nnscaler
def test_the_same_loss_as_everywhere(tmp_path: Path) -> None:
    """nnScaler's trainer, autodist and ZeRO over two processes: 20 steps of the batches in common/golden."""
    prepared, run = tmp_path / "golden", tmp_path / "run"
    golden.prepare(prepared)
    settings = golden.read().settings["full"]
    values = {
        "model.dtype": "float32",
        "data.max_length": golden.LENGTH,
        "train.learning_rate": settings["learning_rate"],
        "train.weight_decay": settings["weight_decay"],
        "train.max_grad_norm": settings["max_grad_norm"],
        "train.micro_batch_size": 1,  # two of them on each of two ranks: the four rows of a step
        "train.max_steps": golden.STEPS,
        "train.save_steps": golden.STEPS,
        "config.optimizer.betas": settings["betas"],
        "config.optimizer.eps": settings["eps"],
        "config.data.shuffle": "false",
    }
    options = ["--model", prepared / "model"]
    for key, value in values.items():
        options += ["--set", f"{key}={value}"]
    stages(run, *options, names=("weights", "data"))
    shutil.rmtree(run / "data" / "train")
    shutil.copytree(prepared / "data" / "train", run / "data" / "train")
    stages(run, *options, names=("train",))
    compared = golden.compare("full", [row["loss"] for row in rows(run)])
    golden.record(run, compared, {name: version(name) for name in ("torch", "transformers", "nnscaler")})
    assert not compared.problems, compared.problems
