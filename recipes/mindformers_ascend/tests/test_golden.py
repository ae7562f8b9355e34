"""On the golden batches, in fp32, MindFormers' Trainer lands on the reference curve."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import version
from pathlib import Path

from conftest import run_sh

from common import golden
from common.data import mindrecord


def test_the_same_loss_as_everywhere(tmp_path: Path) -> None:
    """All weights, two processes with data parallel: 20 steps of the batches in common/golden."""
    prepared, run = tmp_path / "golden", tmp_path / "run"
    golden.prepare(prepared)
    settings = golden.read().settings["full"]
    processes = 2
    values = {
        "train.learning_rate": settings["learning_rate"],
        "train.lr_scheduler": "ConstantWarmUpLR",
        "train.warmup_ratio": 0,
        "train.max_grad_norm": settings["max_grad_norm"],
        "train.weight_decay": settings["weight_decay"],
        "train.max_steps": golden.STEPS,
        "train.save_steps": golden.STEPS,
        "train.micro_batch_size": golden.ROWS // processes,
        "parallel.processes": processes,
        "config.optimizer.betas": json.dumps(settings["betas"]),
        "config.optimizer.eps": settings["eps"],
        "config.train_dataset.data_loader.shuffle": "false",
        "config.model.model_config.seq_length": golden.LENGTH,
    }
    options = ["--output", run, "--model", prepared / "model"]
    for key, value in values.items():
        options += ["--set", f"{key}={value}"]
    for stage in ("weights", "data"):
        done = run_sh(*options, "--only", stage)
        assert done.returncode == 0, done.stdout + done.stderr
    shutil.rmtree(run / "data" / "train")
    shutil.copytree(prepared / "data" / "train", run / "data" / "train")
    for file in (run / "data").glob("train.mindrecord*"):
        file.unlink()
    pad = json.loads((run / "data" / "meta.json").read_text())["pad_id"]
    rows = mindrecord.write(
        run / "data" / "train", run / "data" / "train.mindrecord", length=golden.LENGTH + 1, pad=pad
    )
    assert rows == golden.STEPS * golden.ROWS
    done = run_sh(*options, "--only", "train")
    assert done.returncode == 0, done.stdout + done.stderr

    found = [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    compared = golden.compare("full", found)
    golden.record(run, compared, {name: version(name) for name in ("mindspore", "mindformers")})
    assert not compared.problems, compared.problems
