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
def metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="session")
def evaluation(run: Path) -> dict[str, dict[str, Any]]:
    return {row["metric"]: row for row in json.loads((run / "evaluation.json").read_text())}
