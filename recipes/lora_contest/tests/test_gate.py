"""A fine-tuning that forgot how to read: the run is finished, report and all, and says so with status 1.

The same run shows LoRA+: its B learns faster than its A.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import run_sh
from test_run import tensors

RATIO = 16
PLANTED = ("train.learning_rate=4.0e-2", "train.max_steps=20", f"lora.learning_rate_ratio={RATIO}")


@pytest.fixture(scope="module")
def ruined(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, str]:
    output = tmp_path_factory.mktemp("ruined") / "run"
    done = run_sh("--output", output, *(word for each in PLANTED for word in ("--set", each)))
    return output, done.returncode, done.stdout + done.stderr


def test_an_over_trained_model_fails_the_gate(ruined: tuple[Path, int, str]) -> None:
    run, status, said = ruined
    assert status == 1, said
    assert "its model lost too much: reading F1 is" in said
    assert "Traceback" not in said
    report = json.loads((run / "report.json").read_text("utf-8"))
    assert report["verdict"] and "reading F1" in report["verdict"]
    assert report["verdict"] in (run / "report.md").read_text("utf-8")
    assert any(row["regressions"] for row in report["evaluation"])
    again = run_sh("--output", run, *(word for each in PLANTED for word in ("--set", each)))
    assert again.returncode == 1
    assert again.stdout.count("done before") == 6


def test_lora_plus_moves_b_further(ruined: tuple[Path, int, str], run: Path) -> None:
    """AdamW moves a weight by about the learning rate a step, whatever the gradient: B by 16 times as much as A."""

    def largest(folder: Path, part: str) -> float:
        held = tensors(folder / "adapter" / "adapter_model.safetensors")
        return float(np.mean([np.abs(value).mean() for name, value in held.items() if f"lora_{part}" in name]))

    plain = largest(run, "B") / largest(run, "A")
    plus = largest(ruined[0], "B") / largest(ruined[0], "A")
    assert plus > 2 * plain
