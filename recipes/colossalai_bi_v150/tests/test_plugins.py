"""Every way of parallelising computes what one process computes."""

from __future__ import annotations

import math
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import STEPS, VARIANTS, Variant
from data import IGNORE, Batches, open_rows
from setup import learning_rate
from transformers import LlamaForCausalLM

from common import golden

NAMES = [name for chosen in VARIANTS.values() for name in chosen]


def reference(run: Path, config: dict[str, Any], data_size: int) -> list[tuple[float, float]]:
    """Loss and gradient norm of each step: one process, transformers and torch's AdamW, each text alone, unpadded."""
    torch.set_num_threads(1)
    section = config["train"]
    model = LlamaForCausalLM.from_pretrained(run / "weights", torch_dtype=torch.float32).train()
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), eps=1e-8, weight_decay=0.01)
    prepared = open_rows(run / "data" / "train", None)
    order = Batches(
        prepared,
        pad_id=0,
        micro_batch_size=section["micro_batch_size"],
        accumulation=section["gradient_accumulation_steps"],
        data_rank=0,
        data_size=data_size,
        seed=section["seed"],
        max_length=None,
        multiple=1,
        together=False,
    )
    found = []
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step, STEPS)
        size = order.global_batch_size
        total, tokens = torch.zeros(()), 0
        for index in range(step * size, (step + 1) * size):
            row = prepared[order.row_of(index)]
            ids, labels = (torch.as_tensor(row[key], dtype=torch.long)[None] for key in ("input_ids", "labels"))
            logits = model(input_ids=ids).logits[0, :-1].float()
            total = total + torch.nn.functional.cross_entropy(logits, labels[0, 1:], reduction="sum")
            tokens += int((labels[0, 1:] != IGNORE).sum())
        (total / tokens).backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), section["max_grad_norm"])
        optimizer.step()
        optimizer.zero_grad()
        found.append((total.item() / tokens, norm.item()))
    return found


@pytest.fixture(scope="module")
def references(run: Path, config: dict[str, Any]) -> dict[int, list[tuple[float, float]]]:
    return {data_size: reference(run, config, data_size) for data_size in (1, 2)}


@pytest.mark.parametrize("name", NAMES)
def test_loss_equals_one_process_of_transformers(
    name: str, variants: dict[str, Variant], references: dict[int, list[tuple[float, float]]]
) -> None:
    """Catches a loss that is a mean of means, masked end tokens, labels shifted twice, wrong scales and clipping."""
    variant = variants[name]
    expected = references[variant.data_size]
    assert [row["step"] for row in variant.metrics] == list(range(1, STEPS + 1))
    exact = variant.dtype == "float32"
    for row, (loss, norm) in zip(variant.metrics, expected, strict=True):
        assert row["loss"] == pytest.approx(loss, abs=1e-4 if exact else 2e-2), row
        assert row["grad_norm"] == pytest.approx(norm, rel=1e-3 if exact else 3e-2), row


@pytest.mark.parametrize("name", NAMES)
def test_rotary_frequencies_are_exact(name: str, variants: dict[str, Variant]) -> None:
    """Plugins turn the model to bf16 with its buffers: frequencies are then off by up to 0.4 %."""
    assert variants[name].facts["rotary_error"] < 1e-6


def test_layers_are_recomputed_as_each_stage_says(variants: dict[str, Variant]) -> None:
    """Two layers a stage and two micro-batches a step; the first stage computes both again, the second one of them."""
    micro_batches = 2 * STEPS
    assert variants["pp2"].facts["layers_computed"] == [micro_batches * (2 + 2), micro_batches * (2 + 1)]
    assert variants["tp2"].facts["layers_computed"] == [micro_batches * (4 + 4)] * 2  # none is named: all


def test_learning_rate_steps_through_a_pipeline(variants: dict[str, Variant]) -> None:
    peak = 3e-3
    for name in ("pp2", "tp2_pp2", "pp2_zero1"):
        rates = [row["learning_rate"] for row in variants[name].metrics]
        cosine = [0.1 * peak + 0.45 * peak * (1 + math.cos(math.pi * step / 4)) for step in range(4)]
        assert rates == pytest.approx([peak / 2, peak, *cosine])


def test_learning_rate_has_its_peak_after_the_warm_up(config: dict[str, Any]) -> None:
    rates = [learning_rate(config, step, 100) for step in range(100)]
    assert max(rates) == rates[1] == rates[2] == 3e-3
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[-1] == pytest.approx(0.1 * 3e-3, rel=1e-2)


@pytest.mark.parametrize("name", ["golden_tp2", "golden_pp2_dp2"])
def test_loss_is_on_the_curve_of_all_recipes(name: str, run: Path, variants: dict[str, Variant]) -> None:
    compared = golden.compare("full", [row["loss"] for row in variants[name].metrics])
    golden.record(run, compared, {"colossalai": version("colossalai"), "torch": torch.__version__})
    assert not compared.problems, compared.problems
