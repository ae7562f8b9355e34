"""What nnScaler saves, read by `python -m common.weights`: held against nnScaler's own merging."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch
from conftest import RECIPE, ROOT, needs_nnscaler
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

pytestmark = needs_nnscaler


def weights(*arguments: object, status: int = 0) -> str:
    """What `python -m common.weights ARGUMENTS` prints."""
    command = [sys.executable, "-m", "common.weights", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_merged_checkpoint_is_converted_bit_by_bit(run: Path, tmp_path: Path) -> None:
    merged = tmp_path / "merged.ckpt"
    command = [sys.executable, str(RECIPE / "merge.py"), str(run / "checkpoints" / "last"), str(merged)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    config = ["--config", run / "weights"]
    shown = json.loads(weights("inspect", merged, *config))
    assert (shown["format"], shown["parameters"], shown["dtype"]) == ("trainer", 1115264, "bf16")
    weights("convert", merged, tmp_path / "meta", "--to", "meta", *config)
    weights("convert", tmp_path / "meta", tmp_path / "hf", "--to", "hf")
    # The exported model: nnscaler.merge_state_dicts and transformers, nothing of common.weights.
    expected = {
        name: tensor for file in (run / "model").glob("*.safetensors") for name, tensor in load_file(file).items()
    }
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "hf", dtype="auto").state_dict()
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert "the same: 39 tensors" in weights("verify", merged, run / "model", *config)


def test_one_ranks_part_is_refused_with_a_way_out(run: Path) -> None:
    last = run / "checkpoints" / "last"
    for given in (last, last / "0.ckpt"):
        assert "merge the parts of all ranks first" in weights("inspect", given, status=2)
