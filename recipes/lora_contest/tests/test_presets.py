"""The full presets, as far as a CPU can tell: their commands and their configuration."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from conftest import RECIPE, run_sh

from common.weights import tiny  # noqa: F401  (the recipe's environment has what the full presets' weights need)


def resolved(preset: str, tmp_path: Path, *more: str) -> dict:
    """The configuration that MindFormers would be given."""
    model, data = RECIPE / "samples" / "base", RECIPE / "samples" / "problems.jsonl"
    done = run_sh(
        "--preset", preset, "--platform", "ascend_32gb", "--model", model, "--data", data, "--dry-run",
        "--set", f"evaluate.reading={RECIPE / 'samples' / 'reading.json'}", "--output", tmp_path / "run", *more,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    text = done.stdout.split("config.yaml <<'END'\n")[-1].split("\nEND\n")[0]
    found: dict = yaml.safe_load(text)
    return found


@pytest.mark.parametrize(
    ("preset", "model_parallel", "batch", "seq", "rank", "targets", "trained"),
    [
        ("full", 4, 64, 256, 8, ".*wq|.*wv", 3_407_872),
        ("full_8npu", 8, 16, 256, 8, ".*wq|.*wv", 3_407_872),
        ("winner", 4, 16, 768, 64, ".*wq|.*wk|.*wv|.*wo", 54_525_952),
    ],
)
def test_values_of_the_contest(
    preset: str, model_parallel: int, batch: int, seq: int, rank: int, targets: str, trained: int, tmp_path: Path
) -> None:
    config = resolved(preset, tmp_path)
    model = config["model"]["model_config"]
    assert config["parallel_config"]["model_parallel"] == model_parallel
    assert config["runner_config"]["batch_size"] == batch
    assert model["seq_length"] == seq
    assert config["lr_schedule"]["learning_rate"] == 1e-5
    lora = model["pet_config"]
    assert (lora["lora_rank"], lora["lora_alpha"], lora["lora_dropout"]) == (rank, 16, 0.0)
    assert lora["target_modules"] == targets
    # of Llama 3 8B: 4096 wide, keys and values 1024
    widths = {"wq": 4096 + 4096, "wk": 4096 + 1024, "wv": 4096 + 1024, "wo": 4096 + 4096}
    assert 32 * rank * sum(widths[each[2:]] for each in targets.split("|")) == trained


def test_full_without_weights_and_data_says_what_is_missing() -> None:
    done = run_sh("--preset", "full")
    assert done.returncode == 2
    assert "--model" in done.stderr and "--data" in done.stderr
    assert "Traceback" not in done.stderr
