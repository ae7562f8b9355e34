"""The real MindSpore reads our .ckpt and we read its; the real MindFormers computes the same logits.

Runs where mindspore (and, for the logits, mindformers) is installed: `nox -s tests` runs it in the environment of
recipes/mindformers_ascend.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from common.weights import containers
from common.weights.convert import Options, convert
from common.weights.dtypes import FP32, cast
from common.weights.logits import logits, prompts
from common.weights.source import open_source

mindspore = pytest.importorskip("mindspore", reason="needs MindSpore: nox -s tests runs it in a recipe's environment")

Models = Callable[..., Path]
TOLERANCE = 1e-5


def in_fp32(parameter: Any) -> Any:
    return parameter.astype(mindspore.float32).asnumpy()


def ours_in_fp32(file: Path) -> dict[str, Any]:
    return {
        name: cast(raw.open().read(0, raw.shape[0]), raw.dtype, FP32)
        for name, raw in containers.read(file).items()
        if raw.dtype is not None and raw.shape
    }


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_mindspore_reads_ours_and_we_read_its(models: Models, tmp_path: Path, dtype: str) -> None:
    convert(models(dtype=dtype), tmp_path / "m", Options("mindspore"))
    file = tmp_path / "m" / "llama3.ckpt"
    expected = ours_in_fp32(file)
    loaded = mindspore.load_checkpoint(str(file))
    assert set(loaded) == set(expected)
    for name, parameter in loaded.items():
        assert np.array_equal(in_fp32(parameter), expected[name])
    saved = tmp_path / "saved.ckpt"
    counters = {"epoch_num": 3, "step_num": 15, "note": "text"}
    entries = [{"name": name, "data": parameter} for name, parameter in loaded.items()]
    entries.append({"name": "adam_m.lm_head.weight", "data": loaded["lm_head.weight"]})
    mindspore.save_checkpoint(entries, str(saved), append_dict=counters, crc_check=True)
    back = ours_in_fp32(saved)
    for name, values in expected.items():
        assert np.array_equal(back[name], values)
    source = open_source(saved, tmp_path / "m")  # counters and optimizer state are left out
    assert set(source.tensors) == set(open_source(models(dtype=dtype)).tensors)


def test_mindspore_reads_a_tensor_split_over_values(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from common.weights import mindspore_ckpt

    monkeypatch.setattr(mindspore_ckpt, "CHUNK", 50_000)
    convert(models(dtype="fp32"), tmp_path / "m", Options("mindspore"))
    file = tmp_path / "m" / "llama3.ckpt"
    expected = ours_in_fp32(file)
    for name, parameter in mindspore.load_checkpoint(str(file)).items():
        assert np.array_equal(in_fp32(parameter), expected[name])


def test_mindspore_reads_our_safetensors(models: Models, tmp_path: Path) -> None:
    convert(models(dtype="fp32"), tmp_path / "m", Options("mindspore-safetensors"))
    file = tmp_path / "m" / "model.safetensors"
    expected = ours_in_fp32(file)
    loaded = mindspore.load_checkpoint(str(file), format="safetensors")
    assert set(loaded) == set(expected)
    for name, parameter in loaded.items():
        assert np.array_equal(in_fp32(parameter), expected[name])


@pytest.mark.parametrize(
    "options",
    [Options("mindspore"), Options("mindspore-safetensors"), Options("mindspore", qkv_concat=True)],
    ids=["ckpt", "safetensors", "qkv_concat"],
)
def test_mindformers_computes_the_same_logits(models: Models, tmp_path: Path, options: Options) -> None:
    pytest.importorskip("mindformers", reason="needs MindFormers: pip install mindformers==1.8.0")
    from mindformers.models.llama import LlamaConfig, LlamaForCausalLM

    original = open_source(models(dtype="fp32"))
    convert(models(dtype="fp32"), tmp_path / "m", options)
    folder = tmp_path / "m"
    section = yaml.safe_load((folder / "model_config.yaml").read_text())["model"]["model_config"]
    ids = prompts(original.config)
    cpu = {
        "seq_length": len(ids[0]),
        "compute_dtype": "float32",
        "embedding_init_type": "float32",
        "use_past": False,
        "use_flash_attention": False,
        "fused_rms_norm": False,
        "use_rope_slice": True,
    }
    mindspore.set_context(mode=1, device_target="CPU")
    net = LlamaForCausalLM(LlamaConfig(**{**section, **cpu}))
    net.set_train(False)
    kind = "ckpt" if options.to == "mindspore" else "safetensors"
    file = folder / ("llama3.ckpt" if kind == "ckpt" else "model.safetensors")
    missing, unused = mindspore.load_param_into_net(net, mindspore.load_checkpoint(str(file), format=kind))
    assert not missing
    assert not unused
    for row in ids:
        found = net(mindspore.Tensor([row], mindspore.int32))[0].asnumpy().reshape(len(row), -1)
        expected = logits(original, row)
        assert np.abs(expected).max() > 0.5  # else a tolerance would prove nothing
        assert np.abs(found - expected).max() < TOLERANCE
