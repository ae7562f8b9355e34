"""Defects planted on purpose leave the golden curve: what it would let through is not a check."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from common import environment, golden

SCRIPT = Path(__file__).with_name("planted.py")


@pytest.fixture(scope="module")
def losses(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[float]]:
    """The losses of the training as it is right, and with each defect."""
    python = torch_python()
    folder = tmp_path_factory.mktemp("planted") / "golden"
    golden.prepare(folder)
    variables = {**os.environ, "PYTHONPATH": str(environment.ROOT), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run([str(python), str(SCRIPT), str(folder)], capture_output=True, text=True, env=variables)
    assert ran.returncode == 0, ran.stderr
    found: dict[str, list[float]] = json.loads(ran.stdout)
    return found


def torch_python() -> Path:
    if named := os.environ.get("LLAMA3_TORCH_PYTHON"):
        return Path(named)
    for folder in sorted(environment.home().glob("*/lib/python3.*/site-packages")):
        python = folder.parents[2] / "bin" / "python"
        if python.exists() and all((folder / name).is_dir() for name in ("torch", "transformers")):
            return python
    pytest.skip("no environment with torch and transformers: run a recipe once, or set LLAMA3_TORCH_PYTHON")


def outside(losses: list[float]) -> list[str]:
    """The steps that are outside the tolerances."""
    rest = golden.read().curves["full"][len(losses) :]
    return golden.compare("full", [*losses, *rest]).problems


def test_the_right_training_is_on_the_curve(losses: dict[str, list[float]]) -> None:
    assert outside(losses["none"]) == []


@pytest.mark.parametrize(
    "defect",
    [
        "Q and K not permuted",
        "labels shifted twice",
        "labels not shifted",
        "end of text masked away",
        "end of text taken for padding",
        "loss on the prompt",
    ],
)
def test_the_first_step_shows_it(losses: dict[str, list[float]], defect: str) -> None:
    """Before any update: the loss itself is of something else."""
    assert any(problem.startswith("step 1:") for problem in outside(losses[defect]))


def test_gradients_that_are_not_clipped_show_in_the_steps_after(losses: dict[str, list[float]]) -> None:
    problems = outside(losses["gradients not clipped"])
    assert problems and not any(problem.startswith("step 1:") for problem in problems)
