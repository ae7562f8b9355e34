"""The figures of a report, against what can be computed by hand."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from built_run import STEPS, write_metrics
from hypothesis import given
from hypothesis import strategies as st

from common import platform, recipe
from common.files import remove
from common.report import flops, plots
from common.report.reading import read
from common.report.render import as_json
from common.report.summary import summarize
from common.weights.config import LlamaConfig

LLAMA3_8B = LlamaConfig(4096, 14336, 32, 32, 8, 128256, 128)


def with_platform(content: dict, name: str, devices: int) -> None:
    content |= {"platform": name, "devices": {"per_node": devices, "nodes": 1}}
    content["batch"] |= {"data_parallel": devices, "global_batch_size": 4}


def test_the_size_of_llama_3_8b() -> None:
    size = flops.model_size(LLAMA3_8B)
    assert size.parameters == 8_030_261_248  # as published with the weights
    assert size.multiplied == size.parameters - 128256 * 4096
    tied = flops.model_size(dataclasses.replace(LLAMA3_8B, tie_word_embeddings=True))
    assert tied.multiplied == size.multiplied  # the table is the head, too


def test_the_one_formula() -> None:
    size = flops.ModelSize(parameters=1200, multiplied=1000, layers=2, width=8)
    attention = 12 * 2 * 8 * 16
    assert flops.flops_per_token(size, 16) == 6 * 1000 + attention
    assert flops.flops_per_token(size, 16, frozen=True, adapter=50) == 4 * 1000 + 6 * 50 + attention
    assert flops.mfu(100, 2e10, 4, 1.0) == pytest.approx(0.5)


def test_throughput_leaves_out_the_warm_up(run: Path) -> None:
    found = summarize(read(run)).training
    assert found is not None and found.throughput is not None
    assert (found.throughput.steps_left_out, found.throughput.steps_counted) == (2, STEPS - 2)
    assert found.throughput.tokens_per_second.total == pytest.approx(90 / 0.5)
    assert found.throughput.padded_tokens_per_second.total == pytest.approx(100 / 0.5)
    assert found.padding_share == pytest.approx(0.1)
    assert found.seconds == pytest.approx((STEPS - 1) * 0.5 + 50)
    assert (found.first_loss, found.last_loss) == (pytest.approx(6.9), pytest.approx(5.0))
    assert found.peak_memory_bytes == 2_000_000_000 + STEPS


def test_one_step_gives_no_throughput(run: Path) -> None:
    write_metrics(run / "metrics.jsonl", 1)
    found = summarize(read(run))
    assert found.training is not None and found.training.steps == 1 and found.training.throughput is None


def test_per_device_and_per_card(run: Path, edit_plan: Callable) -> None:
    edit_plan(lambda content: with_platform(content, "iluvatar_bi_v150", 4))
    found = summarize(read(run))
    assert (found.hardware.devices, found.hardware.cards, found.hardware.unit) == (4, 2, "device")
    assert found.training is not None and found.training.throughput is not None
    rate = found.training.throughput.tokens_per_second
    assert (rate.per_device, rate.per_card) == (pytest.approx(180 / 4), pytest.approx(180 / 2))


@pytest.mark.parametrize("lora", [True, False])
def test_mfu_divides_by_the_platform_s_peak(run: Path, edit_plan: Callable, lora: bool) -> None:
    def change(content: dict) -> None:
        with_platform(content, "nvidia_24gb", 4)
        content["settings"]["lora"] = {"rank": 4} if lora else {}

    edit_plan(change)
    directory = read(run)
    assert directory.recipe is not None
    stated = recipe.Result(what="theirs", metric="MFU", value=40.96, unit="%", hardware="8 × X", source="their README")
    known = directory.recipe.model_copy(update={"results": [stated]})
    found = summarize(dataclasses.replace(directory, recipe=known))
    assert found.training is not None and found.training.throughput is not None and directory.size is not None
    mfu = found.training.throughput.mfu
    peak = platform.read("nvidia_24gb").peak_bf16_tflops
    assert mfu is not None and peak is not None
    weights, adapter = directory.size.multiplied, 2 * 4 * 128
    expected = (4 * weights + 6 * adapter if lora else 6 * weights) + 12 * 4 * 128 * (100 / 4)
    assert mfu.flops_per_token == pytest.approx(expected)
    assert mfu.value == pytest.approx(180 * expected / (4 * peak.value * 1e12))
    assert mfu.peak_source == peak.source
    assert found.results[0].this_run == pytest.approx(100 * mfu.value)  # in %, as it is stated


def test_no_mfu_without_a_peak(run: Path, edit_plan: Callable) -> None:
    edit_plan(lambda content: with_platform(content, "cpu", 2))
    found = summarize(read(run))
    assert found.training is not None and found.training.throughput is not None
    assert found.training.throughput.mfu is None
    assert any("no peak" in note for note in found.notes)


def test_no_mfu_before_the_adapter_is_there(run: Path, edit_plan: Callable) -> None:
    def change(content: dict) -> None:
        with_platform(content, "nvidia_24gb", 4)
        content["settings"]["lora"] = {"rank": 4}

    edit_plan(change)
    remove(run / "adapter")
    assert any("adapter" in note and "No MFU" in note for note in summarize(read(run)).notes)


def test_results_stand_beside_ours_where_the_metric_is_the_same(run: Path) -> None:
    directory = read(run)
    assert directory.recipe is not None

    def stated(metric: str) -> recipe.Result:
        return recipe.Result(what="theirs", metric=metric, value=1.5, unit="", hardware="8 × X", source="their README")

    metrics = {
        "memory": (2e9 + STEPS) / 1e9,
        "tokens/s": 180.0,
        "tokens/s per device": 90.0,
        "train_samples_per_second": 8.0,
        "MFU": None,
        "loss": 5.0,
        "perplexity": math.exp(5.0),
        "held-out data loss": 5.0,
        "ended by themselves": 1.0,
        "joules": None,
    }
    known = directory.recipe.model_copy(update={"results": [stated(metric) for metric in metrics]})
    found = summarize(dataclasses.replace(directory, recipe=known)).results
    assert {each.metric: each.this_run for each in found} == {
        name: None if value is None else pytest.approx(value) for name, value in metrics.items()
    }
    assert {(each.stated, each.stated_source) for each in found} == {(1.5, "their README")}


def test_figures_that_are_not_numbers_are_null_and_said(run: Path) -> None:
    file = run / "metrics.jsonl"
    file.write_text(file.read_text("utf-8").replace('"loss": 5.0,', '"loss": NaN,'), encoding="utf-8")
    evaluation = (run / "evaluation.json").read_text("utf-8").replace('"after": 5.0', '"after": Infinity')
    (run / "evaluation.json").write_text(evaluation, encoding="utf-8")
    found = summarize(read(run))
    content = json.loads(as_json(found), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert content["training"]["last_loss"] is None and content["training"]["lowest_loss"] == pytest.approx(5.1)
    assert content["evaluation"][0]["after"] is None
    assert any(f"step {STEPS}" in note and "diverged" in note for note in found.notes)


def test_keys_of_report_json_are_stable(run: Path) -> None:
    content = json.loads(as_json(summarize(read(run))))
    assert content["version"] == 1
    assert set(content) == {
        *("version", "recipe", "summary", "reproduces", "reproduces_source", "preset", "platform", "platform_summary"),
        *("run", "finished", "missing", "notes", "seconds", "model", "hardware", "batch", "stages", "training"),
        *("evaluation", "verdict", "limits", "leaderboard", "sections"),
        *("data", "data_options", "results", "settings", "config", "provenance"),
    }
    assert content["finished"] is True and content["missing"] == []
    assert content["data"][0]["dropped"] == {"odd number of turns": 1}


@given(st.integers(1, 5 * plots.MOST_POINTS), st.integers(0, 2**32 - 1))
def test_a_thinned_line_keeps_its_peaks(count: int, seed: int) -> None:
    values: list[float] = np.random.default_rng(seed).normal(size=count).tolist()
    steps, kept = plots.thinned(range(len(values)), values)
    assert len(kept) <= plots.MOST_POINTS and list(steps) == sorted(steps)
    assert (min(kept), max(kept)) == (min(values), max(values))


@given(st.lists(st.floats(-100, 100) | st.just(math.nan), min_size=1, max_size=50), st.integers(1, 10))
def test_the_running_mean(values: list[float], width: int) -> None:
    for index, found in enumerate(plots.running_mean(values, width)):
        part = [value for value in values[max(0, index - width + 1) : index + 1] if math.isfinite(value)]
        assert found == pytest.approx(sum(part) / len(part), abs=1e-9) if part else math.isnan(found)
