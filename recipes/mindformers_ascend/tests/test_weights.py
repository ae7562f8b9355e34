"""What MindFormers saves, read by `python -m common.weights`: held against what MindSpore itself loads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import mindspore
import numpy as np
import pytest
from conftest import ROOT
from safetensors.numpy import load_file

LAYER = {
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
NAMES = {"model.tok_embeddings.embedding_weight": "model.embed_tokens.weight", "lm_head.weight": "lm_head.weight"}
NAMES |= {"model.norm_out.weight": "model.norm.weight"}
NAMES |= {
    f"model.layers.{number}.{theirs}.weight": f"model.layers.{number}.{ours}.weight"
    for number in range(4)
    for theirs, ours in LAYER.items()
}


def weights(*arguments: object, status: int = 0) -> str:
    """What `python -m common.weights ARGUMENTS` prints."""
    command = [sys.executable, "-m", "common.weights", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def loaded(run: Path) -> dict[str, Any]:
    """The model in the last checkpoint as MindSpore loads it, by Hugging Face's names; no optimizer state."""
    file = max((run / "mindformers" / "checkpoint" / "rank_0").glob("*.ckpt"), key=lambda path: path.stat().st_mtime)
    held = mindspore.load_checkpoint(str(file))
    assert len(held) > 2 * len(NAMES)
    return {NAMES[name]: parameter for name, parameter in held.items() if name in NAMES}


def same(folder: Path, loaded: dict[str, Any]) -> bool:
    found = {name: values for file in folder.glob("*.safetensors") for name, values in load_file(file).items()}
    assert set(found) == set(loaded) == set(NAMES.values())
    return all(np.array_equal(found[name], parameter.asnumpy()) for name, parameter in loaded.items())


def test_rank_folders_are_converted_bit_by_bit(run: Path, loaded: dict[str, Any], tmp_path: Path) -> None:
    folder, config = run / "mindformers" / "checkpoint", ["--config", run / "weights"]
    shown = json.loads(weights("inspect", folder, *config))
    assert (shown["format"], shown["shards"], shown["parameters"]) == ("mindspore-ranks", 2, 1115264)
    weights("convert", folder, tmp_path / "hf", "--to", "hf", *config)
    assert same(tmp_path / "hf", loaded)
    assert "the same: 39 tensors" in weights("verify", run / "model", folder, *config)
    assert "no config beside them" in weights("inspect", folder, status=2)


def test_mindspores_safetensors_are_converted_bit_by_bit(run: Path, loaded: dict[str, Any], tmp_path: Path) -> None:
    theirs = {ours: name for name, ours in NAMES.items()}
    entries = [{"name": theirs[name], "data": parameter} for name, parameter in loaded.items()]
    entries.append({"name": "adam_m.lm_head.weight", "data": loaded["lm_head.weight"]})
    mindspore.save_checkpoint(entries, str(tmp_path / "llama3.safetensors"), format="safetensors")
    config = ["--config", run / "weights" / "model_config.yaml"]
    assert json.loads(weights("inspect", tmp_path / "llama3.safetensors", *config))["format"] == "mindspore-safetensors"
    weights("convert", tmp_path / "llama3.safetensors", tmp_path / "hf", "--to", "hf", *config)
    assert same(tmp_path / "hf", loaded)
