"""What ColossalAI saves, read by `python -m common.weights`: held against ColossalAI's own files and transformers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from conftest import ROOT, Variant
from safetensors.torch import load_file
from transformers import LlamaForCausalLM

from common.weights.source import open_source

# ColossalAI's own writer of whole and sharded models, as Booster.save_model calls it.
SAVE = """
import sys
import patches
patches.apply("colossalai.without_galore")
from colossalai.checkpoint_io import GeneralCheckpointIO
from transformers import LlamaForCausalLM

model = LlamaForCausalLM.from_pretrained(sys.argv[1], torch_dtype="auto")
writer = GeneralCheckpointIO()
writer.save_model(model, sys.argv[2], shard=True, size_per_shard=1, use_safetensors=False)
writer.save_model(model, sys.argv[3], shard=False)
"""


def weights(*arguments: object, status: int = 0) -> str:
    """What `python -m common.weights ARGUMENTS` prints."""
    command = [sys.executable, "-m", "common.weights", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def saved(folder: Path) -> dict[str, Any]:
    """Every tensor in the safetensors files of `folder`, by safetensors itself."""
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def test_a_checkpoint_is_converted_bit_by_bit(run: Path, tmp_path: Path) -> None:
    checkpoint = run / "checkpoints" / "step-12"
    shown = json.loads(weights("inspect", checkpoint))
    assert (shown["parameters"], shown["dtype"]) == (1115264, "fp32")
    weights("convert", checkpoint, tmp_path / "ckpt", "--to", "mindspore")
    weights("convert", tmp_path / "ckpt", tmp_path / "hf", "--to", "hf")
    expected = saved(checkpoint / "modeling")
    found = LlamaForCausalLM.from_pretrained(tmp_path / "hf", torch_dtype="auto").state_dict()
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert "the same: 39 tensors" in weights("verify", checkpoint, run / "model", "--logits")
    assert "the models differ" in weights("verify", checkpoint, run / "checkpoints" / "step-10", status=1)


def test_every_plugins_checkpoints_are_read(variants: dict[str, Variant]) -> None:
    """Shards by tensor and pipeline parallel rank, ZeRO's, Gemini's: each is one whole model."""
    for name, variant in variants.items():
        for checkpoint in sorted((variant.folder / "checkpoints").glob("step-*")):
            held = saved(checkpoint / "modeling")
            expected = {key: tensor for key, tensor in held.items() if "rotary_emb" not in key}
            source = open_source(checkpoint)
            assert set(source.tensors) == set(expected), name
            for key, tensor in expected.items():
                ours = source.tensors[key]
                assert ours.dtype.hugging_face == str(tensor.dtype).removeprefix("torch.")
                assert ours.read(0, ours.shape[0]).tobytes() == tensor.view(torch.int16).numpy().tobytes(), (name, key)


def test_files_of_torch_that_colossalai_writes_are_read(run: Path, tmp_path: Path) -> None:
    folder, file = tmp_path / "sharded", tmp_path / "whole" / "pytorch_model.bin"
    file.parent.mkdir()
    done = subprocess.run([sys.executable, "-c", SAVE, str(run / "model"), str(folder), str(file)], cwd=ROOT)
    assert done.returncode == 0
    assert len(list(folder.glob("*.bin"))) > 1 and (folder / "pytorch_model.bin.index.json").exists()
    for given in (folder, file):
        assert "the same: 39 tensors" in weights("verify", run / "model", given, "--config", run / "model")
