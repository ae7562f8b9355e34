"""The newest checkpoint as model/ in Hugging Face layout: the ranks' parts merged, and named as transformers does.

    python export.py --config RUN/train/config.yaml --output FOLDER

The whole model is in the host's memory once, in the dtype that it was trained in.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from checkpoints import Checkpoint, last_complete, read
from setup import apply_patches, read_config
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from common.cli import call
from common.errors import RunError

PREFIX = "model."  # SummedLoss holds transformers' model under this name
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)


def merged_weights(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """The model's tensors by transformers' names, from the parts of all ranks."""
    import nnscaler

    merged, _ = nnscaler.merge_state_dicts([read(file)["model"] for file in checkpoint.files])
    return {name.removeprefix(PREFIX): tensor for name, tensor in merged.items() if name.startswith(PREFIX)}


def write_model(config: dict[str, Any], weights: dict[str, torch.Tensor], folder: Path) -> None:
    """Write weights, config.json, generation_config.json and the tokenizer.

    Raises RunError where the weights are not those of the model.
    """
    source, section = Path(config["model"]["path"]), config["export"]
    shape = AutoConfig.from_pretrained(source)
    if config["model"]["from_scratch"]:
        shape.num_hidden_layers = config["model"]["layers"] or shape.num_hidden_layers
    dtype = getattr(torch, section["dtype"])
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(shape, dtype=dtype)
    try:
        model.load_state_dict({name: tensor.to(dtype) for name, tensor in weights.items()}, strict=True, assign=True)
    except RuntimeError as error:
        raise RunError(
            f"the checkpoint does not hold this model: {error}", file=config["checkpoint"]["save_dir"]
        ) from None
    model.generation_config = GenerationConfig.from_pretrained(source)
    model.save_pretrained(folder, max_shard_size=section["shard_size"])
    for name in TOKENIZER_FILES:
        if (source / name).exists():
            shutil.copyfile(source / name, folder / name)


def card_lines(config: dict[str, Any], step: int) -> Iterator[str]:
    """README.md of the model: what it is and how it was made."""
    trainer, optimizer = config["trainer"], config["optimizer"]
    meta = json.loads((Path(config["data"]["path"]) / "meta.json").read_text(encoding="utf-8"))
    scratch = config["model"]["from_scratch"]
    yield from ("---", "library_name: transformers", "tags: [llama-3, nnscaler]", "---", "")
    yield f"# Llama 3 {'trained from scratch' if scratch else 'trained further'} with nnScaler"
    yield ""
    yield (
        f"- Trained for {step} optimizer steps on {meta['train']['documents']} documents of plain text in rows of "
        f"{config['data']['max_length']} tokens, learning rate {optimizer['lr']}, seed {trainer['seed']}."
    )
    yield f"- All weights were trained, in {config['model']['dtype']}; stored in {config['export']['dtype']}."
    yield "- Made by Llama 3 recipes, nnscaler_8b; report.md has losses, versions and the machine."
    if not scratch:
        yield "- The licence of the base model applies."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    config, arguments = read_config(parser)
    apply_patches(config["platform"])
    checkpoint = last_complete(Path(config["checkpoint"]["save_dir"]), remove_others=False)
    if checkpoint is None:
        raise RunError("there is no complete checkpoint to export", file=config["checkpoint"]["save_dir"])
    folder = arguments.output / "model"
    folder.mkdir(parents=True)
    write_model(config, merged_weights(checkpoint), folder)
    (folder / "README.md").write_text("\n".join(card_lines(config, checkpoint.step)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(call(main))
