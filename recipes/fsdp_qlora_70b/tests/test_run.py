"""What a person finds after `bash run.sh` with nothing given."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, run_sh
from datasets import load_from_disk
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

LINEAR_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def test_it_learns(metrics: list[dict[str, Any]], evaluation: dict[str, dict[str, Any]]) -> None:
    losses = [row["loss"] for row in metrics]
    assert sum(losses[-4:]) / 4 < losses[0] - 0.8
    assert evaluation["loss"]["after"] < evaluation["loss"]["before"] - 0.8


def test_every_step_has_one_row(metrics: list[dict[str, Any]]) -> None:
    assert [row["step"] for row in metrics] == list(range(1, 19))
    for row in metrics:
        # two rows on each of two ranks, none longer than 256
        assert 0 < row["tokens"] <= row["padded_tokens"] <= 4 * 256
        assert row["grad_norm"] > 0 and row["seconds"] > 0 and row["memory_bytes"] > 2**20


def test_learning_rate_warms_up_and_stays(metrics: list[dict[str, Any]]) -> None:
    rates = [row["learning_rate"] for row in metrics]
    assert rates[0] == 0
    assert rates[1:] == [1e-2] * 17


def test_adapter_has_every_lora_tensor(run: Path) -> None:
    adapter = load_file(run / "adapter" / "adapter_model.safetensors")
    expected = {
        f"base_model.model.model.layers.{layer}.{'self_attn' if name[0] in 'qkvo' else 'mlp'}.{name}.lora_{part}.weight"
        for layer in range(4)
        for name in LINEAR_LAYERS
        for part in "AB"
    }
    assert set(adapter) == expected
    assert all(tensor.abs().sum() > 0 for tensor in adapter.values()), "a LoRA tensor was not trained"
    config = json.loads((run / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["lora_dropout"], config["bias"]) == (16, 8, 0.05, "none")


def test_transformers_loads_the_model_and_it_is_the_one_evaluated(
    run: Path, evaluation: dict[str, dict[str, Any]]
) -> None:
    model = AutoModelForCausalLM.from_pretrained(run / "model", dtype="auto")
    total = tokens = 0
    for row in load_from_disk(str(run / "data" / "eval")):
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor([row["labels"]])
        with torch.no_grad():
            logits = model(ids).logits[0, :-1].float()
        total += float(torch.nn.functional.cross_entropy(logits, labels[0, 1:], reduction="sum"))
        tokens += int((labels[0, 1:] != -100).sum())
    assert tokens == evaluation["loss"]["count"]
    # the model is rounded to bf16 once more; merged into the unquantized base it is 0.01 or more away
    assert total / tokens == pytest.approx(evaluation["loss"]["after"], abs=3e-3)


def test_model_folder_is_complete(run: Path) -> None:
    model = run / "model"
    assert len(list(model.glob("model-*-of-*.safetensors"))) > 1
    assert (model / "model.safetensors.index.json").exists()
    tokenizer = AutoTokenizer.from_pretrained(model)
    assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)
    generation = json.loads((model / "generation_config.json").read_text())
    assert generation["eos_token_id"] == tokenizer.eos_token_id
    assert "human_assistant" in (model / "README.md").read_text()


@pytest.mark.parametrize("part", ["train", "eval"])
def test_prepared_tokens(run: Path, part: str) -> None:
    """One bos a document, the end of every answer trained, prompts masked, no padding inside."""
    tokenizer = AutoTokenizer.from_pretrained(run / "weights")
    bos, eos, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    for row in load_from_disk(str(run / "data" / part)):
        ids, labels, positions = row["input_ids"], row["labels"], row["position_ids"]
        assert len(ids) <= 256 and pad not in ids
        starts = [index for index, position in enumerate(positions) if position == 0]
        assert starts == [index for index, token in enumerate(ids) if token == bos]
        for begin, end in zip(starts, [*starts[1:], len(ids)], strict=True):
            assert labels[begin] == -100
            assert ids[end - 1] == labels[end - 1] == eos
            trained = [index for index in range(begin, end) if labels[index] != -100]
            assert all(labels[index] == ids[index] for index in trained)
            # every trained eos ends an answer; those that end questions are not trained
            assert labels[begin:end].count(eos) == ids[begin:end].count(eos) / 2


def test_generate_from_the_published_model(run: Path) -> None:
    command = [sys.executable, "-m", "common.evaluation", "generate", "--model", str(run / "model")]
    options = ["--prompt", "What is the capital of Spain?", "--max-new-tokens", "8", "--json"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["prompt"] == "What is the capital of Spain?"
    assert answer["answer"]


def test_sample_answers_before_and_after(evaluation: dict[str, dict[str, Any]]) -> None:
    ended = evaluation["ended by themselves"]
    assert ended["count"] == len(ended["samples"]) == 2
    assert 0 <= ended["before"] <= 1 and 0 <= ended["after"] <= 1
    for sample in ended["samples"]:
        assert sample["prompt"].endswith("\n\nAssistant: ") and sample["reference"]
        assert sample["before"] != sample["after"]


def test_report_and_tensorboard_events(run: Path) -> None:
    report = json.loads((run / "report.json").read_text())
    assert report["version"] == 1
    assert "held-out" in (run / "report.html").read_text(encoding="utf-8").lower()
    assert (run / "report.md").exists()
    assert list((run / "tensorboard").rglob("events.out.tfevents.*"))


def test_the_same_command_again_does_nothing(run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (run / "model").iterdir()}
    again = run_sh("--output", run)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("done before") == 6
    assert {path: path.stat().st_mtime_ns for path in (run / "model").iterdir()} == before
