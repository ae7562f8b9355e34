"""A run directory as a run leaves it: tiny weights, prepared data, an adapter, a plan."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from asked_run import SYSTEM, Ask, prepared, write_adapter

from common import environment
from common.weights import tiny


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RUN with weights/, model/, adapter/, data/ and plan.yaml; never written to by a test."""
    run = tmp_path_factory.mktemp("generate") / "run"
    prepared(run, "human_assistant", system=SYSTEM)
    tiny.make(run / "weights", seed=3, dtype="fp32")
    tiny.make(run / "model", seed=4, dtype="fp32")
    write_adapter(run / "adapter", run / "weights")
    plan = {
        "recipe": "fsdp_qlora_70b",
        "platform": "cpu",
        "settings": {"model": {"dtype": "float32", "quantized": False}},
        "config": {"model": {"quantized": False}},
        "environment": {"OMP_NUM_THREADS": "1"},
        "python": str(run / "no" / "such" / "python"),
    }
    (run / "plan.yaml").write_text(yaml.safe_dump(plan), encoding="utf-8")
    return run


@pytest.fixture(scope="session")
def ask() -> Ask:
    """`python -m common.evaluation generate` with these arguments."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "common.evaluation", "generate", *map(str, arguments)]
        variables = {**os.environ, "PYTHONPATH": str(environment.ROOT)}
        return subprocess.run(command, capture_output=True, text=True, env=variables, cwd=environment.ROOT)

    return run


@pytest.fixture(scope="session")
def torch_python() -> Path:
    """A Python with torch, transformers and peft: LLAMA3_TORCH_PYTHON, or of a recipe's environment that is there."""
    if named := os.environ.get("LLAMA3_TORCH_PYTHON"):
        return Path(named)
    for folder in sorted(environment.home().glob("*/lib/python3.*/site-packages")):
        python = folder.parents[2] / "bin" / "python"
        if python.exists() and all((folder / name).is_dir() for name in ("torch", "transformers", "peft")):
            return python
    pytest.skip("no environment with torch, transformers and peft: run a recipe once, or set LLAMA3_TORCH_PYTHON")
