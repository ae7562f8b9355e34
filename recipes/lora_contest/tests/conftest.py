"""The recipe's tests read one smoke run, made once: `run`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from recipe_runs import RunSh

RECIPE = Path(__file__).resolve().parent.parent
ROOT = RECIPE.parent.parent
sys.path.insert(0, str(RECIPE))
run_sh = RunSh(RECIPE)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a finished smoke run with nothing given."""
    return run_sh.smoke(tmp_path_factory.mktemp("smoke") / "run")


@pytest.fixture(scope="session")
def evaluation(run: Path) -> dict[str, dict[str, Any]]:
    """The rows of evaluation.json of whole tasks, by metric."""
    rows = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    return {row["metric"]: row for row in rows if row["part"] is None}
