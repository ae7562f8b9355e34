"""The recipe's tests read one smoke run, made once: `run`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

RECIPE = Path(__file__).resolve().parent.parent
ROOT = RECIPE.parent.parent
RUN_SH = RECIPE / "run.sh"
sys.path[:0] = [str(RECIPE), str(ROOT)]


def run_sh(*arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """`bash run.sh ARGUMENTS`, with its output."""
    command = ["bash", str(RUN_SH), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=900)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a finished smoke run with nothing given, called from an empty folder.

    MINDFORMERS_RUN names one that is there already.
    """
    if given := os.environ.get("MINDFORMERS_RUN"):
        return Path(given)
    output = tmp_path_factory.mktemp("smoke") / "a path with spaces, 和中文"
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    done = run_sh("--output", output, cwd=elsewhere)
    assert done.returncode == 0, done.stdout + done.stderr
    nothing_left_in(elsewhere)
    return output


def nothing_left_in(folder: Path) -> None:
    """MindSpore's compilers leave folders where they run: here and in the project there are none."""
    assert list(folder.iterdir()) == []
    assert not any((ROOT / name).exists() for name in ("rank_0", "kernel_meta", "output"))


@pytest.fixture(scope="session")
def metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


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
