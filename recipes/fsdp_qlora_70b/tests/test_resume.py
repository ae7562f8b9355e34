"""Runs that are killed, interrupted, extended, or pasted by hand end as they should."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from conftest import ROOT, RUN_SH, run_sh


def start(output: Path) -> subprocess.Popen[str]:
    """run.sh in a process group of its own, as a terminal starts it."""
    return subprocess.Popen(
        ["bash", str(RUN_SH), "--output", str(output)],
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


def rows(output: Path) -> int:
    file = output / "metrics.jsonl"
    return len(file.read_text().splitlines()) if file.exists() else 0


def bytes_of(run: Path, name: str) -> dict[str, bytes]:
    """The files of a folder in a run directory, whose own place (the base that an adapter names) is taken out."""
    place = str(run).encode()
    return {path.name: path.read_bytes().replace(place, b"RUN") for path in sorted((run / name).iterdir())}


def test_killed_at_any_stage_it_ends_in_the_same_bytes(run: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    moments: list[Callable[[], bool]] = [
        lambda: (output / "weights.partial").exists() or (output / "weights").exists(),
        lambda: rows(output) >= 8,  # past the checkpoint of step 6
        lambda: (output / "checkpoints" / "checkpoint-12").exists(),  # while it is written
        lambda: (output / "export.partial" / "adapter").exists(),
        lambda: (output / "evaluate.partial").exists(),
    ]
    for moment in moments:
        process = start(output)
        wait_until(process, moment)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        wait_until_nobody_works_in(output)
    last = run_sh("--output", output)
    assert last.returncode == 0, last.stdout + last.stderr
    assert bytes_of(output, "adapter") == bytes_of(run, "adapter")
    assert bytes_of(output, "model") == bytes_of(run, "model")
    steps = [line.split(",")[0] for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert steps == [f'{{"step": {step}' for step in range(1, 19)]


def test_interrupted_it_says_how_to_go_on_and_more_steps_extend_it(run: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    shutil.copytree(run, output)
    more = ["bash", str(RUN_SH), "--output", str(output), "--set", "train.max_steps=30", "--only", "train"]
    process = subprocess.Popen(
        more, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    wait_until(process, lambda: rows(output) >= 20)
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
    said = process.communicate()[0]
    assert process.returncode == 130, said
    assert "goes on from the last checkpoint" in said and "Traceback" not in said
    done = run_sh("--output", output, "--set", "train.max_steps=22", "--only", "train")
    assert done.returncode == 2 and "train.max_steps: 30 -> 22" in done.stderr
    done = run_sh("--output", output, "--set", "train.max_steps=30", "--only", "train")
    assert done.returncode == 0, done.stdout + done.stderr
    assert rows(output) == 30
    assert (output / "checkpoints" / "checkpoint-30" / "complete.json").exists()


def test_a_changed_plan_stops_and_names_the_key(run: Path) -> None:
    done = run_sh("--output", run, "--set", "train.learning_rate=1e-3")
    assert done.returncode == 2
    assert "train.learning_rate: 0.01 -> 0.001" in done.stderr


def test_the_dry_run_pasted_into_a_shell_runs_the_recipe(tmp_path: Path) -> None:
    output = tmp_path / "a path with spaces, 和中文"
    shown = run_sh("--output", output, "--dry-run", "--set", "train.max_steps=2", "--set", "evaluate.prompts=0")
    assert shown.returncode == 0, shown.stderr
    assert not output.exists(), "a dry run writes nothing"
    pasted = subprocess.run(["bash"], input=shown.stdout, capture_output=True, text=True, cwd=ROOT, timeout=600)
    assert pasted.returncode == 0, pasted.stdout + pasted.stderr
    for name in ("adapter", "model", "evaluation.json", "train/config.yaml"):
        assert (output / name).exists()
    assert rows(output) == 2
