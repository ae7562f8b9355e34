"""A run that was stopped ends in the model of one that was not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import RESUMED, STEPS, Variant, rows
from safetensors.torch import load_file

STATE = ("loss", "grad_norm", "learning_rate", "tokens", "padded_tokens")


def model_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}


@pytest.mark.parametrize("name", RESUMED)
def test_resumed_run_equals_the_uninterrupted_one(name: str, variants: dict[str, Variant]) -> None:
    variant = variants[name]
    assert variant.resumed is not None
    whole, again = variant.metrics, rows(variant.resumed / "metrics.jsonl")
    assert [row["step"] for row in again] == list(range(1, STEPS + 1))
    for one, other in zip(whole, again, strict=True):
        assert {key: one[key] for key in STATE} == {key: other[key] for key in STATE}
    last = f"checkpoints/step-{STEPS}/modeling"
    assert model_bytes(variant.folder / last) == model_bytes(variant.resumed / last)
    assert len(model_bytes(variant.folder / last)) > 0
    assert not list((variant.resumed / "checkpoints").glob("*.partial"))


@pytest.mark.parametrize("name", [name for name in RESUMED if name not in ("tp2", "pp2")])
def test_resumed_zero_keeps_its_fp32_weights(name: str, variants: dict[str, Variant]) -> None:
    """To the last bit: made anew from bf16 they would be off by up to 0.4 %."""
    variant = variants[name]
    assert variant.resumed is not None
    files = sorted((variant.folder / f"checkpoints/step-{STEPS}/masters").iterdir())
    assert len(files) == (4 if name == "pp2_zero1" else 2)
    for masters in files:
        again = load_file(variant.resumed / f"checkpoints/step-{STEPS}/masters" / masters.name)
        for key, tensor in load_file(masters).items():
            assert tensor.dtype == torch.float32 and torch.equal(tensor, again[key])


def test_killed_it_ends_in_the_model_of_a_run_that_was_not(run: Path, variants: dict[str, Variant]) -> None:
    """At a step, while a checkpoint is written, and while the model is exported: see `run`."""
    unbroken = variants["unbroken"]
    for folder in ("step-10", "step-12"):
        parts = f"checkpoints/{folder}/modeling"
        assert model_bytes(run / parts) == model_bytes(unbroken.folder / parts)
    for one, other in zip(rows(run / "metrics.jsonl"), unbroken.metrics, strict=True):
        assert {key: one[key] for key in STATE} == {key: other[key] for key in STATE}
    assert not list(run.glob("*.partial")) and not list((run / "checkpoints").glob("*.partial"))
    trained = {key: value for file in (run / parts).glob("*.safetensors") for key, value in load_file(file).items()}
    exported = {key: value for file in (run / "model").glob("*.safetensors") for key, value in load_file(file).items()}
    assert trained.keys() == exported.keys()
    assert all(torch.equal(trained[key], exported[key]) for key in trained)
