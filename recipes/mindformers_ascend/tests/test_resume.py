"""Runs that are killed, interrupted, extended, or pasted by hand end as they should."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from conftest import ROOT, RUN_SH, run_sh

from common.frameworks.mindformers import checkpoints
from common.weights import mindspore_ckpt

STEPS = 24


def start(output: Path, *options: str) -> subprocess.Popen[str]:
    """run.sh in a process group of its own, as a terminal starts it."""
    return subprocess.Popen(
        ["bash", str(RUN_SH), "--output", str(output), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_until(process: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 600
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def wait_until_nobody_works_in(output: Path) -> None:
    """Workers left behind would go on writing beside the run that replaces theirs."""
    deadline = time.monotonic() + 60
    while at_work := [line for line in command_lines() if str(output) in line]:
        assert time.monotonic() < deadline, at_work
        time.sleep(0.1)


def command_lines() -> list[str]:
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(file.read_text(errors="replace"))
    return found


def rows(output: Path) -> list[dict[str, float]]:
    file = output / "metrics.jsonl"
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def curve(output: Path) -> list[tuple[float, ...]]:
    return [(row["step"], row["loss"], row["learning_rate"], row["grad_norm"]) for row in rows(output)]


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_killed_and_repeated_it_ends_in_the_same_bytes(run: Path, tmp_path: Path) -> None:
    """kill -9 while training, once past a checkpoint and once in a later epoch; then its newest file is cut short."""
    output = tmp_path / "run"
    folder = output / "mindformers" / "checkpoint"
    for reached in (10, 17):  # checkpoints at 8 and 16; an epoch is 9 steps
        process = start(output)
        wait_until(process, lambda reached=reached: len(rows(output)) >= reached)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        wait_until_nobody_works_in(output)
    last = checkpoints.last_whole(folder, 2)
    assert last is not None and last.step == 16
    cut_after_the_last_tensor(last.files[1])
    assert (earlier := checkpoints.last_whole(folder, 2)) is not None and earlier.step == 8
    done = run_sh("--output", output)
    assert done.returncode == 0, done.stdout + done.stderr
    assert curve(output) == curve(run)
    assert bytes_of(output / "model") == bytes_of(run / "model")


def cut_after_the_last_tensor(file: Path) -> None:
    """What MindSpore would load without a word: the file ends where a value ends, before MindFormers' counters."""
    tensors = mindspore_ckpt.read(file)
    last = [raw for name, raw in tensors.items() if name not in checkpoints.AT_THE_END][-1]
    end = last.extents[-1].offset + last.extents[-1].length
    file.chmod(0o600)
    with open(file, "r+b") as stream:
        stream.truncate(end)
    assert set(mindspore_ckpt.read(file)) == set(tensors) - checkpoints.AT_THE_END


def test_interrupted_it_says_how_to_go_on_and_more_steps_extend_it(run: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    shutil.copytree(run, output)
    more = ["--set", "train.max_steps=32", "--only", "train"]
    process = start(output, *more)
    wait_until(process, lambda: len(rows(output)) >= STEPS + 2)
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
    said = process.communicate()[0]
    assert process.returncode == 130, said
    assert "goes on from the last checkpoint" in said and "Traceback" not in said
    wait_until_nobody_works_in(output)
    done = run_sh("--output", output, *more)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [row["step"] for row in rows(output)] == list(range(1, 33))
    assert checkpoints.need_last(output / "mindformers" / "checkpoint").step == 32


def test_the_dry_run_pasted_into_a_shell_runs_the_recipe(tmp_path: Path) -> None:
    """In a path with a space, with one process, from a folder of its own in which nothing is left."""
    output, elsewhere = tmp_path / "a path with spaces, 和中文", tmp_path / "elsewhere"
    elsewhere.mkdir()
    options = ["--set", "train.max_steps=2", "--set", "evaluate.prompts=0", "--set", "train.micro_batch_size=2"]
    shown = run_sh("--output", output, "--dry-run", *options, "--nproc-per-node", "2")
    assert shown.returncode == 0, shown.stderr
    assert not output.exists(), "a dry run writes nothing"
    pasted = subprocess.run(["bash"], input=shown.stdout, capture_output=True, text=True, cwd=elsewhere, timeout=600)
    assert pasted.returncode == 0, pasted.stdout + pasted.stderr
    for name in ("model", "evaluation.json", "report.html", "train/config.yaml"):
        assert (output / name).exists()
    assert len(rows(output)) == 2
    assert list(elsewhere.iterdir()) == [] and not (ROOT / "rank_0").exists() and not (ROOT / "kernel_meta").exists()
