"""The yardsticks of the bench: the same work as the public stack does it by itself.

    torchrun stock.py train --config RUN/train/config.yaml --output FILE   a bare trl loop: the steps' seconds
    torchrun stock.py load  --config RUN/train/config.yaml --output FILE   from_pretrained on every rank, then FSDP2
    torchrun stock.py ours  --config RUN/train/config.yaml --output FILE   layer by layer, as train.py loads

Only `nox -s bench` runs this (tools/bench/fsdp_qlora_70b.py).
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from data import Collator
from datasets import load_from_disk
from peft import get_peft_model
from setup import begin, end, load, lora_config, options, quantization, read_config
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer

from common.cli import call


class Clock(TrainerCallback):
    """Seconds of each step, from its first forward pass to its log."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.started = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seconds.append(time.perf_counter() - self.started)


def from_pretrained(config: dict[str, Any]) -> Any:
    """The whole quantized model on this rank."""
    dtype = getattr(torch, config["model"]["dtype"])
    folder = config["model"]["path"]
    return AutoModelForCausalLM.from_pretrained(folder, quantization_config=quantization(config), dtype=dtype)


def train(config: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """trl's own loop: accelerate shards, trl collates, nothing of ours but the prepared rows."""
    values = {**config["sft"], "save_strategy": "no", "report_to": "none"}
    values["fsdp_config"] = {
        **values["fsdp_config"],
        "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "transformer_layer_cls_to_wrap": ["LlamaDecoderLayer"],
    }
    args = options(SFTConfig, "sft", values, use_cpu=device.type == "cpu")
    tokenizer = AutoTokenizer.from_pretrained(config["model"]["path"])
    clock = Clock()
    SFTTrainer(
        model=from_pretrained(config),
        args=args,
        train_dataset=load_from_disk(str(Path(config["data"]["path"]) / "train")),
        data_collator=Collator(tokenizer.pad_token_id),
        processing_class=tokenizer,
        peft_config=lora_config(config),
        callbacks=[clock],
    ).train()
    return {"seconds": clock.seconds}


def load_stock(config: dict[str, Any], device: torch.device) -> dict[str, Any]:
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    model = get_peft_model(from_pretrained(config), lora_config(config), autocast_adapter_dtype=False)
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    for layer in model.get_base_model().model.layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    return used(before, started)


def load_ours(config: dict[str, Any], device: torch.device) -> dict[str, Any]:
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    load(config, device)
    return used(before, started)


def used(before: int, started: float) -> dict[str, Any]:
    """Growth of this process's peak memory, bytes, and seconds."""
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"peak_bytes": grown * 1024, "seconds": time.perf_counter() - started}


WORK = {"train": train, "load": load_stock, "ours": load_ours}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", choices=WORK)
    parser.add_argument("--output", type=Path, required=True)
    config, arguments = read_config(parser)
    device = begin(config["platform"])
    result = WORK[arguments.work](config, device)
    if dist.get_rank() == 0:
        arguments.output.write_text(json.dumps(result), encoding="utf-8")
    end()


if __name__ == "__main__":
    sys.exit(call(main))
