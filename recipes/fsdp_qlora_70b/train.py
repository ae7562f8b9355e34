"""Q-LoRA (or LoRA) fine-tuning of Llama 3 with PyTorch FSDP2 and trl's SFTTrainer.

    torchrun --nproc-per-node N train.py --config RUN/train/config.yaml

The configuration's sections are the arguments of transformers' BitsAndBytesConfig, peft's LoraConfig and
trl's SFTConfig. Labels in the prepared data are not shifted; the model's loss shifts them, once.
Resuming is automatic: the newest complete checkpoint under the output directory is continued.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import yaml
from checkpoints import SftTrainer, last_complete
from datasets import load_from_disk
from model import build, check_sharded, load_sharded
from peft import LoraConfig
from torch.distributed.device_mesh import init_device_mesh
from transformers import AutoTokenizer, BitsAndBytesConfig
from trl import SFTConfig

import patches
from common.cli import call
from common.errors import UserError, did_you_mean


def options(kind: type, section: str, values: dict[str, Any], **more: Any) -> Any:
    """`kind(**values)`, where an unknown key is an error that names the nearest right one."""
    known = set(inspect.signature(kind).parameters) - {"kwargs"}
    for key in values:
        if key not in known:
            raise UserError(f"unknown key {section}.{key}: {kind.__name__} has none", hint=did_you_mean(key, known))
    return kind(**values, **more)


def collate(pad_id: int, rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """Rows of any length as one batch, padded on the right. Shapes (rows, longest row), int64.

    There is no attention mask: attention is limited by position_ids, which restart at 0 with every
    document; transformers derives the block-diagonal causal mask from them. The padding is one more
    document. Its labels are -100.
    """
    longest = max(len(row["input_ids"]) for row in rows)
    batch: dict[str, list[list[int]]] = {"input_ids": [], "labels": [], "position_ids": []}
    for row in rows:
        missing = longest - len(row["input_ids"])
        batch["input_ids"].append(list(row["input_ids"]) + [pad_id] * missing)
        batch["labels"].append(list(row["labels"]) + [-100] * missing)
        batch["position_ids"].append(list(row["position_ids"]) + list(range(missing)))
    return {name: torch.tensor(values, dtype=torch.long) for name, values in batch.items()}


class Collator:
    def __init__(self, pad_id: int) -> None:
        self.pad_id = pad_id

    def __call__(self, rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        return collate(self.pad_id, rows)


def setup(config: dict[str, Any]) -> tuple[Any, Any]:
    """Patches, platform and distributed set-up: the SFTConfig and the FSDP device mesh."""
    for name in config["platform"]["patches"]:
        patches.apply(name)
    if config["platform"]["plugin"]:
        importlib.import_module(config["platform"]["plugin"])
    args = options(SFTConfig, "sft", config["sft"], use_cpu=config["platform"]["device"] == "cpu")
    mesh = init_device_mesh(args.device.type, (dist.get_world_size(),), mesh_dim_names=("fsdp",))
    return args, mesh


def load(config: dict[str, Any], args: Any, mesh: Any) -> Any:
    """The sharded model as `config` states it, on `args.device`."""
    section = config["model"]
    dtype = getattr(torch, section["dtype"])
    folder = Path(section["path"])
    quantization = None
    if section["quantized"]:
        quantization = options(BitsAndBytesConfig, "bitsandbytes", config["bitsandbytes"])
        if quantization.bnb_4bit_quant_storage != dtype:
            raise UserError(
                "bitsandbytes.bnb_4bit_quant_storage must equal model.dtype: FSDP would convert the packed weights",
                found=quantization.bnb_4bit_quant_storage,
                expected=dtype,
            )
    lora = options(LoraConfig, "lora", config["lora"])
    model = build(folder, dtype, quantization, lora, section["attn_implementation"])
    model.config.use_cache = False
    load_sharded(
        model,
        folder,
        mesh=mesh,
        device=args.device,
        dtype=dtype,
        reduce_dtype=getattr(torch, config["fsdp"]["reduce_dtype"]),
        cpu_offload=config["fsdp"]["cpu_offload"],
        seed=args.seed,
    )
    check_sharded(model, dist.get_world_size())
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    path = parser.parse_args().config
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    args, mesh = setup(config)
    if args.process_index == 0:
        print(f"world size {args.world_size}, device {args.device}, global batch {args.train_batch_size * args.world_size * args.gradient_accumulation_steps} rows")
    tokenizer = AutoTokenizer.from_pretrained(config["model"]["path"])
    resume = last_complete(Path(args.output_dir), remove_others=args.process_index == 0)
    dist.barrier()
    trainer = SftTrainer(
        model=load(config, args, mesh),
        args=args,
        metrics_path=Path(config["metrics"]),
        resume_step=resume.step if resume else 0,
        train_dataset=load_from_disk(config["data"]["train"]),
        data_collator=Collator(tokenizer.pad_token_id),
        processing_class=tokenizer,
    )
    trainer.train(resume_from_checkpoint=str(resume.folder) if resume else None)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    sys.exit(call(main))
