"""The newest checkpoint as model/ in Hugging Face layout, with config, tokenizer and a card.

    python export.py --config RUN/train/config.yaml --output FOLDER

One tensor at a time is read, beside the file that is being filled.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from checkpoints import last_complete, need_whole, read_position, weights_index
from huggingface_hub import split_state_dict_into_shards_factory
from safetensors import safe_open
from safetensors.torch import save_file
from setup import read_config

from common.cli import call
from common.errors import RunError

COMPANIONS = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json")


def write_weights(source: Path, base: Path, folder: Path, dtype: torch.dtype, shard_size: str) -> None:
    """Write the tensors in `source` (a checkpoint's modeling/) to `folder`.

    Raises RunError unless they are those of `base` by name and shape: a stage or a rank that did not write its part
    would leave a model that loads with random weights in its place.
    """
    files = weight_map(source)
    wanted = shapes(base, weight_map(base))
    found = shapes(source, files)
    if found != wanted:
        wrong = sorted({name for name, _ in found.items() ^ wanted.items()})
        raise RunError("the checkpoint's tensors are not the model's", file=source, found=", ".join(wrong[:5]))
    split = split_state_dict_into_shards_factory(
        {name: torch.Size(shape).numel() * dtype.itemsize for name, shape in sorted(found.items())},
        get_storage_size=lambda size: size,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=shard_size,
    )
    for file, names in split.filename_to_tensors.items():
        tensors = {}
        for name in names:
            with safe_open(source / files[name], "pt") as opened:
                tensors[name] = opened.get_tensor(name).to(dtype).contiguous()
        save_file(tensors, folder / file, metadata={"format": "pt"})
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def weight_map(folder: Path) -> dict[str, str]:
    """The file of each tensor in a folder of safetensors files."""
    if (single := folder / "model.safetensors").exists():
        with safe_open(single, "pt") as opened:
            return dict.fromkeys(opened.keys(), single.name)
    index = json.loads(Path(weights_index(folder)).read_text(encoding="utf-8"))
    return dict(index["weight_map"])


def shapes(folder: Path, files: dict[str, str]) -> dict[str, tuple[int, ...]]:
    found = {}
    for name, file in files.items():
        with safe_open(folder / file, "pt") as opened:
            found[name] = tuple(opened.get_slice(name).get_shape())
    return found


def copy_companions(config: dict[str, Any], folder: Path) -> None:
    """config.json, generation_config.json and the tokenizer travel with the model."""
    source = Path(config["model"]["path"])
    content = json.loads((source / "config.json").read_text(encoding="utf-8"))
    content["torch_dtype"] = content["dtype"] = config["export"]["dtype"]
    (folder / "config.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    for name in COMPANIONS:
        if (source / name).exists():
            shutil.copyfile(source / name, folder / name)
    generation = json.loads((source / "generation_config.json").read_text(encoding="utf-8"))
    ends = generation["eos_token_id"] if isinstance(generation["eos_token_id"], list) else [generation["eos_token_id"]]
    if (end := read_meta(config)["end_of_answer_id"]) not in ends:
        generation["eos_token_id"] = [end, *ends]  # generation stops where the template ends an answer
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n", encoding="utf-8")


def read_meta(config: dict[str, Any]) -> dict[str, Any]:
    """What the data stage says of the prepared data."""
    meta: dict[str, Any] = json.loads((Path(config["data"]["path"]) / "meta.json").read_text(encoding="utf-8"))
    return meta


def card(config: dict[str, Any], step: int) -> str:
    """README.md of the model: what it is and how it was made."""
    return f"""---
library_name: transformers
tags: [llama-3, sft]
---

# Llama 3 fine-tuned with ColossalAI

- All parameters trained for {step} optimizer steps in {config["model"]["dtype"]}, learning rate
  {config["optimizer"]["lr"]}, seed {config["train"]["seed"]}; stored in {config["export"]["dtype"]}.
- Prompt template: `{read_meta(config)["template"]}`. The same template must be used to ask it.
- Made by Llama 3 recipes, colossalai_bi_v150; report.md has losses, versions and the machine.
- The licence of the base model applies.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    config, arguments = read_config(parser)
    checkpoint = last_complete(Path(config["checkpoints"]))
    if checkpoint is None:
        raise RunError("there is no complete checkpoint to export", file=config["checkpoints"])
    need_whole(checkpoint)
    folder = arguments.output / "model"
    folder.mkdir(parents=True)
    dtype = getattr(torch, config["export"]["dtype"])
    base = Path(config["model"]["path"])
    write_weights(checkpoint.folder / "modeling", base, folder, dtype, config["export"]["shard_size"])
    copy_companions(config, folder)
    (folder / "README.md").write_text(card(config, read_position(checkpoint)["step"]), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(call(main))
