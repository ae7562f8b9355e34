"""What a person finds after `bash run.sh` with nothing given."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import torch
from conftest import ROOT, needs_nnscaler, rows, run_sh
from datasets import load_from_disk
from reference import next_token_loss
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from common.environment import light_spec

pytestmark = needs_nnscaler


def test_it_learns(run: Path) -> None:
    losses = [row["loss"] for row in rows(run)]
    assert sum(losses[-4:]) / 4 < losses[0] - 3
    held_out = {row["metric"]: row for row in json.loads((run / "evaluation.json").read_text())}
    assert held_out["loss"]["after"] < held_out["loss"]["before"] - 3
    assert held_out["perplexity"]["after"] < held_out["perplexity"]["before"] / 20


def test_every_step_has_one_row(run: Path) -> None:
    assert [row["step"] for row in rows(run)] == list(range(1, 25))
    for row in rows(run):
        assert 0 < row["tokens"] <= row["padded_tokens"] == 8 * 128
        assert row["learning_rate"] == 3e-3
        assert row["grad_norm"] > 0 and row["seconds"] > 0 and row["memory_bytes"] > 2**20


def test_transformers_loads_the_model_and_it_is_the_one_evaluated(run: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(run / "model", dtype=torch.bfloat16)
    held_out = json.loads((run / "evaluation.json").read_text())[0]
    data = list(load_from_disk(str(run / "data" / "eval")))
    assert next_token_loss(model, data) == pytest.approx(held_out["after"], abs=3e-3)


def test_model_folder_is_complete(run: Path) -> None:
    model = run / "model"
    shards = sorted(model.glob("model-*-of-*.safetensors"))
    assert len(shards) > 1 and (model / "model.safetensors.index.json").exists()
    before = {
        name: tensor for file in (run / "weights").glob("*.safetensors") for name, tensor in load_file(file).items()
    }
    after = {name: tensor for file in shards for name, tensor in load_file(file).items()}
    assert {name: tensor.shape for name, tensor in after.items()} == {n: t.shape for n, t in before.items()}
    assert all(tensor.dtype == torch.bfloat16 for tensor in after.values())
    assert not any(torch.equal(after[name], before[name]) for name in after), "a weight was not trained"
    tokenizer = AutoTokenizer.from_pretrained(model)
    assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)
    assert "nnscaler_8b" in (model / "README.md").read_text()


def test_the_plan_is_in_the_run_directory_and_in_the_report(run: Path) -> None:
    plan = json.loads((run / "autodist" / "plan.json").read_text())
    assert plan["e2e_time"] > 0 and len(plan["desc"]["recompute_groups"]) == 4, "one for each decoder layer"
    assert list((run / "autodist" / "comp").iterdir()), "the measurements"
    report = (run / "report.md").read_text(encoding="utf-8")
    assert "## The parallel plan" in report
    for text in ("Policy autodist: 1 of 2 devices", "over the 2 copies", "ms a micro-batch", "chunked\\_losses"):
        assert text in report
    assert "The parallel plan" in (run / "report.html").read_text(encoding="utf-8")


def test_all_that_is_written_is_in_the_run_directory(run: Path) -> None:
    assert list((run / "generated").rglob("gencode*.py"))
    assert list((run / "tensorboard").rglob("events.out.tfevents.*"))
    assert not (ROOT / ".nnscaler").exists() and not (ROOT / "runs" / "tensorboard").exists()
    assert not list(Path.home().glob(".cache/nnscaler/autodist/*/cpu/comp/losses*"))


def test_the_same_command_again_does_nothing(run: Path) -> None:
    again = run_sh("--output", run)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("done before") == 6


def test_generate_from_the_published_model(run: Path) -> None:
    command = [str(light_spec().python()), "-m", "common.evaluation", "generate", "--model", str(run / "model")]
    options = ["--prompt", "The fog came in from the sea", "--max-new-tokens", "8", "--json"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["answer"]


def test_from_scratch_with_other_layers(tmp_path: Path) -> None:
    """The demo's --from_scratch --num_hidden_layers: the shape of the given model, with new weights."""
    output = tmp_path / "run"
    options = ["--set", "model.from_scratch=true", "--set", "model.layers=2", "--set", "train.max_steps=2"]
    done = run_sh("--output", output, *options, "--nproc-per-node", "1", "--set", "parallel.plugin=dp",
                  "--set", "train.gradient_checkpointing=false")  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    model = AutoModelForCausalLM.from_pretrained(output / "model", dtype=torch.bfloat16)
    assert len(model.model.layers) == 2
    assert rows(output)[0]["loss"] == pytest.approx(7.15, abs=0.3), "that of guessing among 1,280 words"
    evaluation = json.loads((output / "evaluation.json").read_text())
    assert [row["before"] for row in evaluation] == [None, None]
    assert "Policy dp: 1 of 1 devices" in (output / "report.md").read_text(encoding="utf-8")
