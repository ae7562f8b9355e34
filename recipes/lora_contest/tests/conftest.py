"""The recipe's tests read one smoke run, made once: `run`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

RECIPE = Path(__file__).resolve().parent.parent
ROOT = RECIPE.parent.parent
RUN_SH = RECIPE / "run.sh"
sys.path[:0] = [str(RECIPE), str(ROOT)]


def run_sh(*arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """`bash run.sh ARGUMENTS`, with its output."""
    command = ["bash", str(RUN_SH), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=1800)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a finished smoke run with nothing given. LORA_CONTEST_RUN names one that is there already."""
    if given := os.environ.get("LORA_CONTEST_RUN"):
        return Path(given)
    output = tmp_path_factory.mktemp("smoke") / "run"
    done = run_sh("--output", output)
    assert done.returncode == 0, done.stdout + done.stderr
    return output


@pytest.fixture(scope="session")
def evaluation(run: Path) -> dict[str, dict[str, Any]]:
    """The rows of evaluation.json of whole tasks, by metric."""
    rows = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    return {row["metric"]: row for row in rows if row["part"] is None}
