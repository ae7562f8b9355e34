"""Runs that are killed, interrupted, extended, or pasted by hand end as they should."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from conftest import ROOT, run_sh
from recipe_runs import interrupt, kill, wait_until


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
        process = run_sh.start(output)
        wait_until(process, moment)
        kill(process, output)
    last = run_sh("--output", output)
    assert last.returncode == 0, last.stdout + last.stderr
    assert bytes_of(output, "adapter") == bytes_of(run, "adapter")
    assert bytes_of(output, "model") == bytes_of(run, "model")
    steps = [line.split(",")[0] for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert steps == [f'{{"step": {step}' for step in range(1, 19)]


def test_interrupted_it_says_how_to_go_on_and_more_steps_extend_it(run: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    shutil.copytree(run, output)
    process = run_sh.start(output, "--set", "train.max_steps=30", "--only", "train")
    wait_until(process, lambda: rows(output) >= 20)
    said = interrupt(process)
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
