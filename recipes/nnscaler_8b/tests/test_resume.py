"""Runs that are killed, extended, merged, or taken to another number of processes go on as they should."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import RECIPE, ROOT, needs_nnscaler, rows, run_sh, stages
from recipe_runs import kill, wait_until

pytestmark = needs_nnscaler


def kill_when(output: Path, steps: int) -> None:
    """Start run.sh and kill it, and all that it started, when so many steps are done."""
    process = run_sh.start(output)
    wait_until(process, lambda: len(rows(output)) >= steps)
    kill(process, output)


def test_resumed_at_the_middle_it_is_the_uninterrupted_run(run: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    kill_when(output, 14)  # past the checkpoint of step 12
    (output / "checkpoints" / "0000-0018").mkdir(exist_ok=True)  # as if killed while it was written, too
    done = run_sh("--output", output)
    assert done.returncode == 0, done.stdout + done.stderr
    compared = ("step", "loss", "learning_rate", "grad_norm", "tokens", "padded_tokens")
    assert [[row[key] for key in compared] for row in rows(output)] == [
        [row[key] for key in compared] for row in rows(run)
    ]
    for file in sorted((run / "model").iterdir()):
        assert (output / "model" / file.name).read_bytes() == file.read_bytes(), file.name
    assert "going on after step 12: " in (output / "logs" / "train.log").read_text()


def test_more_steps_go_on_from_the_last(run: Path, tmp_path: Path) -> None:
    """The demo's --resume_from=last --max_train_steps=2000; the run directory is moved, too."""
    moved = tmp_path / "moved"
    shutil.copytree(run, moved, symlinks=True)
    done = run_sh("--output", moved, "--set", "train.max_steps=26", "--only", "train")
    assert done.returncode == 0, done.stdout + done.stderr
    assert rows(moved)[:24] == rows(run)
    assert [row["step"] for row in rows(moved)[24:]] == [25, 26]
    assert rows(moved)[25]["loss"] < rows(run)[0]["loss"] - 3


@pytest.fixture(scope="module")
def merged(tensor_parallel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint after step 2 of the tensor-parallel run, as one file."""
    file = tmp_path_factory.mktemp("merged") / "merged.ckpt"
    done = merge(tensor_parallel / "checkpoints" / "0000-0002", file)
    assert done.returncode == 0, done.stderr
    return file


def merge(checkpoint: Path, file: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(RECIPE / "merge.py"), str(checkpoint), str(file)]
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=variables, timeout=300)


def test_from_a_merged_file_on_another_plan_and_number_of_processes(
    tensor_parallel: Path, merged: Path, tmp_path: Path
) -> None:
    """Two tensor-parallel processes, then one with all matrices whole: steps 3 and 4 are the same."""
    options = ["--set", "model.dtype=float32", "--set", "parallel.plugin=dp", "--nproc-per-node", "1"]
    options += ["--set", "train.gradient_checkpointing=false", "--set", "train.max_steps=4"]
    options += ["--set", f"config.checkpoint.resume_from={merged}"]
    alone = stages(tmp_path / "run", *options, names=("weights", "data", "train"))
    assert [row["step"] for row in rows(alone)] == [3, 4]
    for row, expected in zip(rows(alone), rows(tensor_parallel)[2:], strict=True):
        assert row["loss"] == pytest.approx(expected["loss"], abs=1e-5)
        assert row["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-4)


def test_an_incomplete_checkpoint_is_not_merged(tensor_parallel: Path, tmp_path: Path) -> None:
    copy = tmp_path / "checkpoint"
    shutil.copytree(tensor_parallel / "checkpoints" / "0000-0002", copy)
    (copy / "0.ckpt").unlink()
    done = merge(copy, tmp_path / "merged.ckpt")
    assert done.returncode == 2 and "no 0.ckpt" in done.stderr
    (copy / "0.ckpt").write_bytes((copy / "1.ckpt").read_bytes()[:1000])
    done = merge(copy, tmp_path / "merged.ckpt")
    assert done.returncode == 2 and "damaged" in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.glob("merged*"))
