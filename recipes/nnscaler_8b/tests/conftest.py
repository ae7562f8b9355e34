"""The recipe's tests read one smoke run, made once: `run`. What needs nnScaler is skipped where it is not installed."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from recipe_runs import RunSh

RECIPE = Path(__file__).resolve().parent.parent
ROOT = RECIPE.parent.parent
PATCHES = ["nnscaler.cpu", "nnscaler.newer_torch", "nnscaler.newer_transformers", "nnscaler.autodist_in_run"]
sys.path.insert(0, str(RECIPE))
run_sh = RunSh(RECIPE)

needs_nnscaler = pytest.mark.skipif(
    importlib.util.find_spec("nnscaler") is None,
    reason="nnScaler is not installed: it is not on PyPI; let its repository be reached, or set NNSCALER_SOURCE",
)


def python(code: str, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """A script in a process of its own: patches change torch and nnScaler for good."""
    path = os.pathsep.join([str(ROOT), str(RECIPE)])
    command = [sys.executable, "-c", code, *map(str, arguments)]
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **variables}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=env)


def rows(run: Path) -> list[dict[str, Any]]:
    file = run / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def stages(output: Path, *options: object, names: tuple[str, ...]) -> Path:
    """Run some stages by themselves."""
    for name in names:
        done = run_sh("--output", output, *options, "--only", name)
        assert done.returncode == 0, done.stdout + done.stderr
    return output


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with weights and data, which need no nnScaler."""
    return stages(tmp_path_factory.mktemp("prepared") / "run", names=("weights", "data"))


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a finished smoke run with nothing given."""
    return run_sh.smoke(tmp_path_factory.mktemp("smoke") / "run")


TENSOR_PARALLEL = ["--set", "model.dtype=float32", "--set", "export.dtype=float32", "--set", "parallel.plugin=tp"]
TENSOR_PARALLEL += ["--set", "parallel.tensor_parallel=2", "--set", "train.gradient_checkpointing=false"]
TENSOR_PARALLEL += ["--set", "train.max_steps=4", "--set", "train.save_steps=1", "--set", "train.save_total_limit=4"]


@pytest.fixture(scope="session")
def tensor_parallel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four fp32 steps of a model whose matrices are split over two processes, with a checkpoint after each."""
    output = tmp_path_factory.mktemp("tp") / "run"
    return stages(output, *TENSOR_PARALLEL, names=("weights", "data", "train"))
