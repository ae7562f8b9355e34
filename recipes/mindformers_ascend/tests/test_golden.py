"""On the golden batches, in fp32, MindFormers' Trainer lands on the reference curve, interrupted and extended."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import version
from pathlib import Path

from conftest import rows, run_sh
from recipe_runs import interrupt, wait_until, wait_until_nobody_works_in

from common import golden
from common.data import mindrecord

SAVE_STEPS = 4


def test_the_same_loss_as_everywhere(tmp_path: Path) -> None:
    """All weights, two processes with data parallel: 20 steps of the batches in common/golden.

    Ctrl-C in the first steps says how to go on; the same command with a step more goes on from the last checkpoint.
    """
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
        "train.save_steps": SAVE_STEPS,
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
    fewer, all_steps = (["--set", f"train.max_steps={steps}"] for steps in (golden.STEPS - 1, golden.STEPS))
    for stage in ("weights", "data"):
        done = run_sh(*options, *fewer, "--only", stage)
        assert done.returncode == 0, done.stdout + done.stderr
    shutil.rmtree(run / "data" / "train")
    shutil.copytree(prepared / "data" / "train", run / "data" / "train")
    for file in (run / "data").glob("train.mindrecord*"):
        file.unlink()
    pad = json.loads((run / "data" / "meta.json").read_text())["pad_id"]
    written = mindrecord.write(
        run / "data" / "train", run / "data" / "train.mindrecord", length=golden.LENGTH + 1, pad=pad
    )
    assert written == golden.STEPS * golden.ROWS
    process = run_sh.start(run, *options[2:], *fewer, "--only", "train")
    wait_until(process, lambda: len(rows(run)) > SAVE_STEPS)
    said = interrupt(process)
    assert process.returncode == 130, said
    assert "goes on from the last checkpoint" in said and "Traceback" not in said
    wait_until_nobody_works_in(run)
    done = run_sh(*options, *all_steps, "--only", "train")  # one more; the learning rate does not depend on it
    assert done.returncode == 0, done.stdout + done.stderr

    found = rows(run)
    assert [row["step"] for row in found] == list(range(1, golden.STEPS + 1))
    compared = golden.compare("full", [row["loss"] for row in found])
    golden.record(run, compared, {name: version(name) for name in ("mindspore", "mindformers")})
    assert not compared.problems, compared.problems
