"""The newest checkpoint as adapter/ (PEFT layout) and model/ (merged, Hugging Face layout).

    python export.py --config RUN/train/config.yaml --output FOLDER

The adapter is merged into the base as it was trained on: quantized and dequantized again, not the
original bf16 base. One tensor at a time is in memory, beside the shard that is being filled.
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
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from checkpoints import last_complete
from huggingface_hub import split_state_dict_into_shards_factory
from model import Weights
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from setup import quantization, read_config
from transformers import BitsAndBytesConfig

from common.cli import call
from common.errors import RunError

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
PREFIX = "base_model.model."


class Merger:
    """Tensors of the merged model, one at a time."""

    def __init__(self, base: Weights, adapter: Path, quantized: BitsAndBytesConfig | None, dtype: torch.dtype) -> None:
        self.base = base
        self.lora = load_file(adapter / "adapter_model.safetensors")
        if not self.lora:
            raise RunError("the adapter is empty", file=adapter)
        config = LoraConfig.from_pretrained(adapter)
        self.scale = config.lora_alpha / config.r
        self.rows = config.trainable_token_indices or {}
        self.quantized = quantized
        self.dtype = dtype
        self.device = (
            torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
        )

    def get(self, name: str, compute: torch.dtype) -> torch.Tensor:
        """The merged tensor `name`; the base is read in `compute`, the dtype it was trained on."""
        module = PREFIX + name.removesuffix(".weight")
        weight = self.base.read(name, compute).to(self.device)
        if (a := self.lora.get(f"{module}.lora_A.weight")) is not None:
            b = self.lora[f"{module}.lora_B.weight"]
            if self.quantized is not None:
                weight = self._as_trained(weight)
            update = self.scale * (b.to(self.device).float() @ a.to(self.device).float())
            weight = weight.float() + update
        if (trained := self.lora.get(f"{module}.token_adapter.trainable_tokens_delta")) is not None:
            weight = weight.clone()
            weight[self.rows[name.split(".")[-2]]] = trained.to(weight)
        return weight.to(self.dtype).cpu().contiguous()

    def _as_trained(self, weight: torch.Tensor) -> torch.Tensor:
        assert self.quantized is not None
        packed, state = quantize_4bit(
            weight,
            quant_type=self.quantized.bnb_4bit_quant_type,
            compress_statistics=self.quantized.bnb_4bit_use_double_quant,
            quant_storage=self.quantized.bnb_4bit_quant_storage,
        )
        return dequantize_4bit(packed, state)


def write_model(merger: Merger, compute: torch.dtype, folder: Path, shard_size: str) -> None:
    """Write the merged tensors into shards of `shard_size`, one tensor and one shard in memory at a time."""
    sizes = {name: _size(merger, name) for name in sorted(merger.base.files)}
    split = split_state_dict_into_shards_factory(
        sizes,
        get_storage_size=lambda size: size,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=shard_size,
    )
    for file, names in split.filename_to_tensors.items():
        save_file({name: merger.get(name, compute) for name in names}, folder / file, metadata={"format": "pt"})
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _size(merger: Merger, name: str) -> int:
    """Bytes of a tensor of the merged model."""
    count = 1
    for length in merger.base.shape(name):
        count *= length
    return count * merger.dtype.itemsize


def copy_companions(config: dict[str, Any], folder: Path, dtype: str) -> None:
    """config.json, generation_config.json and the tokenizer travel with the model."""
    source = Path(config["model"]["path"])
    content = json.loads((source / "config.json").read_text(encoding="utf-8"))
    content.pop("quantization_config", None)
    content["dtype"] = content["torch_dtype"] = dtype
    (folder / "config.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    for name in TOKENIZER_FILES:
        if (source / name).exists():
            shutil.copyfile(source / name, folder / name)
    generation = json.loads((source / "generation_config.json").read_text(encoding="utf-8"))
    ends = generation["eos_token_id"] if isinstance(generation["eos_token_id"], list) else [generation["eos_token_id"]]
    if (end := data_meta(config)["end_of_answer_id"]) not in ends:
        generation["eos_token_id"] = [end, *ends]  # generation stops where the template ends an answer
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n", encoding="utf-8")


def data_meta(config: dict[str, Any]) -> dict[str, Any]:
    """What the data stage says of the prepared data."""
    meta: dict[str, Any] = json.loads((Path(config["data"]["path"]) / "meta.json").read_text(encoding="utf-8"))
    return meta


def card_lines(config: dict[str, Any], step: int, merged: bool) -> Iterator[str]:
    """README.md of the model: what it is and how it was made."""
    lora, sft = config["lora"], config["sft"]
    base = (
        "the base quantized to NF4 and dequantized, as it was trained on"
        if config["model"]["quantized"]
        else "the base"
    )
    yield from (
        "---",
        "library_name: transformers" if merged else "library_name: peft",
        "tags: [llama-3, lora, sft]",
        "---",
        "",
    )
    yield f"# Llama 3 fine-tuned with {'Q-LoRA' if config['model']['quantized'] else 'LoRA'}"
    yield ""
    yield f"- Trained for {step} optimizer steps, learning rate {sft['learning_rate']}, seed {sft['seed']}."
    yield f"- LoRA rank {lora['r']}, alpha {lora['lora_alpha']}, dropout {lora['lora_dropout']}."
    yield f"- Prompt template: `{data_meta(config)['template']}`. The same template must be used to ask it."
    if merged:
        yield f"- Weights: the adapter merged into {base}, stored in {config['export']['dtype']}."
    yield "- Made by Llama 3 recipes, fsdp_qlora_70b; report.md has losses, versions and the machine."
    yield "- The licence of the base model applies."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    config, arguments = read_config(parser)
    checkpoint = last_complete(Path(config["sft"]["output_dir"]), remove_others=False)
    if checkpoint is None:
        raise RunError("there is no complete checkpoint to export", file=config["sft"]["output_dir"])
    adapter = arguments.output / "adapter"
    adapter.mkdir(parents=True)
    shutil.copyfile(checkpoint.folder / "adapter_model.safetensors", adapter / "adapter_model.safetensors")
    description = json.loads((checkpoint.folder / "adapter_config.json").read_text(encoding="utf-8"))
    description["target_modules"] = sorted(description["target_modules"])  # PEFT writes a set, in any order
    (adapter / "adapter_config.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    for name in TOKENIZER_FILES:
        if (source := Path(config["model"]["path"]) / name).exists():
            shutil.copyfile(source, adapter / name)
    (adapter / "README.md").write_text("\n".join(card_lines(config, checkpoint.step, False)) + "\n", encoding="utf-8")
    if not config["export"]["merge"]:
        print("export.merge is false: model/ is not written; the adapter is used on the base")
        return
    folder = arguments.output / "model"
    folder.mkdir()
    compute = getattr(torch, config["model"]["dtype"])
    merger = Merger(
        Weights(Path(config["model"]["path"])), adapter, quantization(config), getattr(torch, config["export"]["dtype"])
    )
    write_model(merger, compute, folder, config["export"]["shard_size"])
    copy_companions(config, folder, config["export"]["dtype"])
    (folder / "README.md").write_text("\n".join(card_lines(config, checkpoint.step, True)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(call(main))
