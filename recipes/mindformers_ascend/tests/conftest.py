"""The recipe's tests read one smoke run, made once: `run`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recipe_runs import RunSh

RECIPE = Path(__file__).resolve().parent.parent
ROOT = RECIPE.parent.parent
sys.path.insert(0, str(RECIPE))
run_sh = RunSh(RECIPE)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a finished smoke run with nothing given, called from an empty folder."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    output = run_sh.smoke(tmp_path_factory.mktemp("smoke") / "a path with spaces, 和中文", cwd=elsewhere)
    nothing_left_in(elsewhere)
    return output


def nothing_left_in(folder: Path) -> None:
    """MindSpore's compilers leave folders where they run: here and in the project there are none."""
    assert list(folder.iterdir()) == []
    assert left_in_the_project() <= LEFT_BEFORE


def left_in_the_project() -> set[str]:
    return {name for name in ("rank_0", "kernel_meta", "output") if (ROOT / name).exists()}


LEFT_BEFORE = left_in_the_project()  # by who used MindFormers by hand, say


def rows(output: Path) -> list[dict[str, Any]]:
    """The whole lines of metrics.jsonl, also while it is written."""
    file = output / "metrics.jsonl"
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


@pytest.fixture(scope="session")
def metrics(run: Path) -> list[dict[str, Any]]:
    return rows(run)


@pytest.fixture(scope="session")
def evaluation(run: Path) -> dict[str, dict[str, Any]]:
    return {row["metric"]: row for row in json.loads((run / "evaluation.json").read_text())}


def nll(source: Any, ids: Any, labels: Any) -> tuple[float, int]:
    """Summed negative log-likelihood of a row's trained tokens, and how many they are."""
    from common.weights.logits import logits

    length = int(np.flatnonzero(labels != -100)[-1]) + 1
    scores = logits(source, ids[:length].tolist()).astype(np.float64)
    scores -= scores.max(axis=-1, keepdims=True)
    log_probabilities = scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))
    trained = np.flatnonzero(labels[1:length] != -100)
    return -float(log_probabilities[trained, labels[trained + 1]].sum()), len(trained)
