"""Every format that is read, into every format that is written: the same bits, and verify says so."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from common import recipe
from common.files import write_json
from common.weights import dtypes, peft, torch_files
from common.weights.convert import Options, convert
from common.weights.get import get
from common.weights.source import Source, open_source
from common.weights.tensors import Held, Tensor
from common.weights.verify import verify
from common.weights.writing import write_file

Models = Callable[..., Path]
COMPANIONS = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model")


def converted(options: Options) -> Callable[[Path, Path], None]:
    return lambda original, folder: convert(original, folder, options)


def torch_file(folder: Path, name: str, tensors: dict[str, Tensor]) -> None:
    write_file(folder, torch_files.plan(name, tensors), report=lambda _: None)


def copy_companions(original: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in COMPANIONS:
        if (original / name).is_file():
            shutil.copyfile(original / name, folder / name)


def bin_file(original: Path, folder: Path) -> None:
    copy_companions(original, folder)
    torch_file(folder, "pytorch_model.bin", open_source(original).tensors)


def bin_shards(original: Path, folder: Path, **more: Tensor) -> None:
    copy_companions(original, folder)
    tensors = {**open_source(original).tensors, **more}
    weight_map = {name: f"pytorch_model-{number % 3 + 1:05}.bin" for number, name in enumerate(tensors)}
    for file in sorted(set(weight_map.values())):
        torch_file(folder, file, {name: tensors[name] for name in tensors if weight_map[name] == file})
    write_json(folder / "pytorch_model.bin.index.json", {"metadata": {}, "weight_map": weight_map})


def colossalai(original: Path, folder: Path) -> None:
    # As its pipelines save: tables of the rotary embedding among the weights
    table = Held(dtypes.FP32, np.ones((1, 1, 8, 32), np.float32))
    bin_shards(original, folder / "modeling", **{"model.layers.0.self_attn.rotary_emb._cos_cached": table})
    (folder / "optimizer").mkdir()


def nnscaler(original: Path, folder: Path) -> None:
    copy_companions(original, folder)
    torch_file(folder, "merged.ckpt", {f"model.{name}": held for name, held in open_source(original).tensors.items()})


def adapter(original: Path, folder: Path) -> None:
    folder.mkdir()
    random = np.random.default_rng(0)
    module, table = "base_model.model.model.layers.1.mlp.down_proj", "base_model.model.model.embed_tokens"
    sizes = {f"{module}.lora_A.weight": (4, 384), f"{module}.lora_B.weight": (128, 4)}
    sizes[f"{table}.token_adapter.trainable_tokens_delta"] = (2, 128)
    save_file(
        {name: random.standard_normal(size).astype(np.float32) for name, size in sizes.items()},
        folder / "adapter_model.safetensors",
    )
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "base_model_name_or_path": str(original)}
    write_json(folder / "adapter_config.json", {**config, "trainable_token_indices": {"embed_tokens": [1030, 7]}})


SOURCES: dict[str, Callable[[Path, Path], None]] = {
    "safetensors": converted(Options("hf")),
    "safetensors in shards": converted(Options("hf", shard_size=200_000)),
    "bin": bin_file,
    "bin in shards": bin_shards,
    "meta": converted(Options("meta")),
    "meta in two parts": converted(Options("meta", split=2)),
    "ckpt": converted(Options("mindspore")),
    "ckpt with joined matrices": converted(Options("mindspore", qkv_concat=True)),
    "mindspore's safetensors in shards": converted(Options("mindspore-safetensors", shard_size=200_000)),
    "rank folders": converted(Options("mindspore", split=2)),
    "rank folders of joined matrices": converted(Options("mindspore", split=2, qkv_concat=True)),
    "rank folders of safetensors": converted(Options("mindspore-safetensors", split=2)),
    "colossalai": colossalai,
    "nnscaler": nnscaler,
    "adapter": adapter,
}
TARGETS = {
    "hf": Options("hf"),
    "hf in shards": Options("hf", shard_size=300_000),
    "hf in fp32": Options("hf", dtype="fp32"),
    "mindspore": Options("mindspore"),
    "mindspore qkv-concat": Options("mindspore", qkv_concat=True),
    "mindspore tp=2": Options("mindspore", split=2),
    "mindspore-safetensors": Options("mindspore-safetensors", shard_size=300_000),
    "mindspore-safetensors tp=2 qkv-concat fp16": Options("mindspore-safetensors", "fp16", qkv_concat=True, split=2),
    "meta": Options("meta"),
    "meta tp=2 in fp16": Options("meta", dtype="fp16", split=2),
}


def opened(path: Path) -> Source:
    return peft.open_merged(path, None) if peft.is_adapter(path) else open_source(path)


@pytest.fixture(scope="module")
def sources(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny model in every format that is read."""
    root = tmp_path_factory.mktemp("sources")
    for name, make in SOURCES.items():
        make(models(), root / name)
    return root


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", SOURCES)
def test_every_pair(models: Models, sources: Path, tmp_path: Path, source: str, target: str) -> None:
    options, original = TARGETS[target], open_source(models())
    convert(sources / source, tmp_path / "out", options)
    before, after = opened(sources / source), open_source(tmp_path / "out")
    comparison = verify(before, after)
    assert comparison.same, comparison.problems
    assert comparison.tensors == len(original.tensors)
    assert after.config.dtype == (options.dtype or "bf16")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["vocab_size"] == 1280
    changed = []
    for name, tensor in original.tensors.items():
        held = after.tensors[name]
        expected = dtypes.cast(tensor.read(0, tensor.shape[0]), tensor.dtype, held.dtype)
        if held.read(0, held.shape[0]).tobytes() != expected.tobytes():
            changed.append(name)
    trained = ["model.embed_tokens.weight", "model.layers.1.mlp.down_proj.weight"]
    assert changed == (trained if source == "adapter" else [])


@pytest.mark.parametrize("folder", list(recipe.folders()), ids=lambda folder: folder.name)
def test_the_model_of_every_recipe_may_have_any_format(sources: Path, tmp_path: Path, folder: Path) -> None:
    """`--model` is what the recipe's first command makes the wanted format of; bare files as well as folders."""
    stages = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))["stages"]
    command = stages["weights"]["commands"][0]["run"]
    assert command[:5] == ["python", "-m", "common.weights", "get", "${model.path}"]
    options = Options(command[command.index("--to") + 1])
    for number, given in enumerate([*sorted(sources.iterdir()), sources / "ckpt" / "llama3.ckpt"]):
        get(str(given), tmp_path / str(number), options)
        made = open_source(tmp_path / str(number))
        assert made.format == options.to
        assert verify(opened(given), made).same, given.name
