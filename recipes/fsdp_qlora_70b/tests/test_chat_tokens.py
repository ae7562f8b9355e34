"""The Llama 3 chat template on base weights, with the rows of its tokens made trainable."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch
from conftest import ROOT, run_sh
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

TOKENS = ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]


def test_chat_tokens_are_trained_and_merged(tmp_path: Path) -> None:
    output = tmp_path / "run"
    options = ["--output", output, "--set", "data.template=llama3", "--set", "lora.train_chat_tokens=true"]
    for stage in ("weights", "data", "train", "export"):
        done = run_sh(*options, "--set", "train.max_steps=3", "--only", stage)
        assert done.returncode == 0, done.stdout + done.stderr
    tokenizer = AutoTokenizer.from_pretrained(output / "model")
    ids = tokenizer.convert_tokens_to_ids(TOKENS)
    base = AutoModelForCausalLM.from_pretrained(output / "weights", dtype=torch.bfloat16)
    merged = AutoModelForCausalLM.from_pretrained(output / "model", dtype=torch.bfloat16)
    adapter = load_file(output / "adapter" / "adapter_model.safetensors")
    for name in ("model.embed_tokens", "lm_head"):
        before, after = (model.get_submodule(name).weight.data for model in (base, merged))
        trained = adapter[f"base_model.model.{name}.token_adapter.trainable_tokens_delta"]
        assert not before[ids].any(), "the tiny base's rows are untrained, as in Meta's base weights"
        assert trained.abs().sum(1).min() > 0
        assert torch.equal(after[ids], trained.bfloat16())
        others = [index for index in range(len(before)) if index not in ids]
        assert torch.equal(after[others], before[others])
    command = [sys.executable, "-m", "common.weights", "convert", str(output / "adapter"), str(tmp_path / "merged")]
    done = subprocess.run(
        [*command, "--to", "hf"], capture_output=True, text=True, cwd=ROOT
    )  # the base is in its config
    assert done.returncode == 0, done.stderr
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.bfloat16)
    for name in ("model.embed_tokens", "lm_head"):
        assert torch.equal(again.get_submodule(name).weight, merged.get_submodule(name).weight)
    generation = json.loads((output / "model" / "generation_config.json").read_text())
    assert tokenizer.convert_tokens_to_ids("<|eot_id|>") in generation["eos_token_id"]
