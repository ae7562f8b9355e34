"""The real torch reads our .pth and we read its files; transformers and PEFT compute the same.

Runs where torch (and, for the logits, transformers and peft) is installed.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.errors import UserError
from common.files import write_json
from common.weights import peft as adapters
from common.weights import torch_files
from common.weights.convert import Options, convert
from common.weights.logits import logits, prompts
from common.weights.source import open_source
from common.weights.verify import verify

torch = pytest.importorskip("torch", reason="needs torch")

Models = Callable[..., Path]


def tensors_of(folder: Path) -> dict[str, Any]:
    """The model as torch tensors, under Hugging Face's names."""
    result = {}
    for name, tensor in open_source(folder).tensors.items():
        values = torch.from_numpy(tensor.read(0, tensor.shape[0]).copy())
        result[name] = values.view(torch.bfloat16) if tensor.dtype.name == "bf16" else values
    return result


def companions(source: Path, target: Path) -> Path:
    target.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(source / name, target / name)
    return target


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("mmap", [False, True])
def test_torch_reads_ours_with_weights_only(models: Models, tmp_path: Path, dtype: str, mmap: bool) -> None:
    convert(models(dtype=dtype), tmp_path / "m", Options("meta"))
    loaded = torch.load(tmp_path / "m" / "consolidated.00.pth", weights_only=True, mmap=mmap)
    values = tensors_of(models(dtype=dtype))
    assert len(loaded) == len(values)
    assert torch.equal(loaded["layers.1.feed_forward.w2.weight"], values["model.layers.1.mlp.down_proj.weight"])
    # Meta's permutation, by the formula of the published conversion scripts.
    key = values["model.layers.1.self_attn.k_proj.weight"]
    assert torch.equal(loaded["layers.1.attention.wk.weight"], key.view(2, 2, 16, 128).transpose(1, 2).reshape(64, 128))


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_a_bin_file_and_sharded_ones_are_read(models: Models, tmp_path: Path, dtype: str) -> None:
    original = models(dtype=dtype)
    values = tensors_of(original)
    one = companions(original, tmp_path / "one")
    torch.save(values, one / "pytorch_model.bin")
    many = companions(original, tmp_path / "many")
    names = list(values)
    weight_map: dict[str, str] = {}
    for number, part in enumerate((names[:7], names[7:]), 1):
        file = f"pytorch_model-{number:05}-of-00002.bin"
        torch.save({name: values[name] for name in part}, many / file)
        weight_map |= dict.fromkeys(part, file)
    write_json(many / "pytorch_model.bin.index.json", {"metadata": {}, "weight_map": weight_map})
    for folder in (one, many):
        assert open_source(folder).format == "hf-bin"
        assert verify(open_source(original), open_source(folder)).same


def test_parameters_views_and_a_trainers_checkpoint_are_read(models: Models, tmp_path: Path) -> None:
    # As nnScaler merges one: the wrapper's prefix, optimizer state, arguments and counters beside the model.
    original = models(dtype="fp32")
    values = {f"model.{name}": torch.nn.Parameter(tensor) for name, tensor in tensors_of(original).items()}
    folder = companions(original, tmp_path / "m")
    checkpoint = {
        "model": values,
        "optimizer": {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(4)}}, "param_groups": []},
        "train_args": {"run": argparse.Namespace(seed=1), "dtype": torch.bfloat16, "shape": torch.Size([2])},
        "rng_states": None,
        "nnscaler": "0.8",
    }
    torch.save(checkpoint, folder / "merged.ckpt")
    assert open_source(folder).format == "trainer"
    assert verify(open_source(original), open_source(folder / "merged.ckpt")).same


def test_a_colossalai_checkpoint_folder_is_read(models: Models, tmp_path: Path) -> None:
    original = models()
    modeling = companions(original, tmp_path / "epoch-0_step-10" / "modeling")
    values = tensors_of(original)
    names = list(values)
    weight_map: dict[str, str] = {}
    for number, part in enumerate((names[:9], names[9:]), 1):
        file = f"pytorch_model-{number:05}.bin"
        torch.save({name: values[name] for name in part}, modeling / file)
        weight_map |= dict.fromkeys(part, file)
    write_json(modeling / "pytorch_model.bin.index.json", {"metadata": {"total_size": 1}, "weight_map": weight_map})
    (tmp_path / "epoch-0_step-10" / "optimizer").mkdir()
    assert verify(open_source(original), open_source(tmp_path / "epoch-0_step-10")).same


def test_a_tensor_that_is_not_stored_row_by_row_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(3, 4).T}, tmp_path / "x.pth")
    with pytest.raises(UserError, match="not stored row by row"):
        torch_files.read(tmp_path / "x.pth")
    torch.save({"a": torch.arange(24.0).reshape(6, 4)[2:4]}, tmp_path / "y.pth")
    assert torch_files.read(tmp_path / "y.pth")["a"].open().read(0, 2).tolist() == [[8, 9, 10, 11], [12, 13, 14, 15]]


def test_the_old_format_before_zip_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(3)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(UserError, match="not a torch checkpoint"):
        torch_files.read(tmp_path / "old.pth")


def test_transformers_computes_the_same_logits(models: Models, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    convert(models(dtype="fp32"), tmp_path / "meta", Options("meta"))
    convert(tmp_path / "meta", tmp_path / "back", Options("hf"))
    torch.manual_seed(0)
    scaled = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            hidden_size=96, num_attention_heads=6, num_key_value_heads=2, head_dim=16, intermediate_size=200,
            num_hidden_layers=2, vocab_size=700, tie_word_embeddings=True, max_position_embeddings=131072,
            rope_parameters={"rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0,
                             "high_freq_factor": 4.0, "original_max_position_embeddings": 8},
            bos_token_id=1, eos_token_id=[2, 3], initializer_range=0.1,
        )
    )  # fmt: skip
    scaled.save_pretrained(tmp_path / "scaled")
    for folder in (models(dtype="fp32"), tmp_path / "back", tmp_path / "scaled"):
        theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
        ours = open_source(folder)
        for ids in prompts(ours.config):
            with torch.no_grad():
                expected = theirs(torch.tensor([ids])).logits[0].numpy()
            assert np.abs(expected).max() > 0.5
            assert np.abs(logits(ours, ids) - expected).max() < 1e-5


def test_a_merged_adapter_is_what_peft_merges(models: Models, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    peft = pytest.importorskip("peft")
    base = models(dtype="fp32")
    torch.manual_seed(0)
    cases: dict[str, dict[str, Any]] = {
        "plain": {"r": 8, "lora_alpha": 16},
        "rslora": {"r": 4, "lora_alpha": 16, "use_rslora": True},
        "patterns": {"r": 4, "lora_alpha": 8, "alpha_pattern": {"v_proj": 32}, "rank_pattern": {"q_proj": 2}},
    }
    for name, options in cases.items():
        model = transformers.AutoModelForCausalLM.from_pretrained(base)
        targets = ["q_proj", "v_proj", "down_proj"]
        wrapped = peft.get_peft_model(model, peft.LoraConfig(target_modules=targets, **options))
        for parameter_name, parameter in wrapped.named_parameters():
            if "lora_B" in parameter_name:
                torch.nn.init.normal_(parameter, std=0.1)
        wrapped.save_pretrained(tmp_path / name)
        assert json.loads((tmp_path / name / "adapter_config.json").read_text())["peft_type"] == "LORA"
        merged = adapters.open_merged(tmp_path / name, base)
        expected = wrapped.merge_and_unload().state_dict()
        for key, tensor in merged.tensors.items():
            assert np.abs(tensor.read(0, tensor.shape[0]) - expected[key].numpy()).max() < 1e-6, (name, key)
        assert not verify(open_source(base), merged).same
        convert(tmp_path / name, tmp_path / f"{name}-out", Options("hf"), base=base)
        assert verify(merged, open_source(tmp_path / f"{name}-out")).same
