"""The saved adapter, merged by `python -m common.weights`: held against PEFT's own merging."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch
from conftest import ROOT
from peft import PeftModel
from transformers import AutoModelForCausalLM


def weights(*arguments: object) -> str:
    """What `python -m common.weights ARGUMENTS` prints."""
    command = [sys.executable, "-m", "common.weights", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_adapter_is_merged_as_peft_merges_it(run: Path, tmp_path: Path) -> None:
    adapter = run / "adapter"
    shown = json.loads(weights("inspect", adapter))
    assert (shown["format"], shown["rank"], shown["alpha"], shown["dtype"]) == ("peft", 16, 8, "fp32")
    base = ["--base", run / "weights"]
    weights("convert", adapter, tmp_path / "merged", "--to", "hf", *base)
    model = AutoModelForCausalLM.from_pretrained(run / "weights", dtype=torch.float32)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    expected = PeftModel.from_pretrained(model, adapter).merge_and_unload().state_dict()
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype="auto").state_dict()
    assert set(found) == set(expected)
    for name, tensor in found.items():
        assert tensor.dtype is torch.bfloat16
        # in fp32 and rounded once: half of bf16's last place, and sums that were added in another order
        assert torch.allclose(tensor.float(), expected[name], rtol=2**-8, atol=1e-6), name
        if "_proj" in name:
            assert (expected[name] - before[name]).abs().max() > 1e-3, "the adapter changes nothing"
    assert "the same: 39 tensors" in weights("verify", adapter, tmp_path / "merged", *base)
