"""From RUN/train/config.yaml to a sharded model on this rank's device, for training, evaluation and export."""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import yaml
from model import LoraWeights, build, check_sharded, load_sharded
from peft import LoraConfig, PeftModel
from torch.distributed.device_mesh import init_device_mesh
from transformers import AutoTokenizer, BitsAndBytesConfig

import patches
from common.errors import UserError, did_you_mean

CHAT_TOKENS = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")


def read_config(parser: argparse.ArgumentParser) -> tuple[dict[str, Any], argparse.Namespace]:
    """Parse the command line, which has --config, and read the configuration that it names."""
    parser.add_argument("--config", type=Path, required=True)
    arguments = parser.parse_args()
    config: dict[str, Any] = yaml.safe_load(arguments.config.read_text(encoding="utf-8"))
    return config, arguments


def options(kind: type, section: str, values: dict[str, Any], **more: Any) -> Any:
    """`kind(**values, **more)`, where an unknown key is an error that names the nearest right one."""
    known = set(inspect.signature(kind).parameters) - {"kwargs"}
    for key in values:
        if key not in known:
            raise UserError(
                f"config.{section}.{key}: {kind.__name__} has no such option", hint=did_you_mean(key, known)
            )
    return kind(**values, **more)


def begin(platform: dict[str, Any]) -> torch.device:
    """Apply patches, make the platform known to torch, join the other processes: this rank's device."""
    if "LOCAL_RANK" not in os.environ:
        raise UserError("this script is started through torchrun", hint="run.sh --dry-run shows the command")
    for name in platform["patches"]:
        patches.apply(name)
    if platform["plugin"]:
        importlib.import_module(platform["plugin"])
    if platform["device"] == "cpu":
        device = torch.device("cpu")
    else:
        device = torch.device(platform["device"], int(os.environ["LOCAL_RANK"]))
        torch.accelerator.set_device_index(device.index)
    # gloo beside the device's own backend: with CPU offload, gradients are clipped on the host
    backend = "gloo" if device.type == "cpu" else f"cpu:gloo,{device.type}:{platform['backend']}"
    dist.init_process_group(backend, device_id=None if device.type == "cpu" else device)
    return device


def quantization(config: dict[str, Any]) -> BitsAndBytesConfig | None:
    """How the base is quantized, or None. Raises UserError when FSDP would corrupt the packed weights."""
    section = config["model"]
    if not section["quantized"]:
        return None
    made = options(BitsAndBytesConfig, "bitsandbytes", config["bitsandbytes"])
    if made.bnb_4bit_quant_storage != getattr(torch, section["dtype"]):
        raise UserError(
            "config.bitsandbytes.bnb_4bit_quant_storage must equal model.dtype: FSDP gathers parameters in that dtype, "
            "and converting packed 4-bit weights destroys them without an error",
            found=made.bnb_4bit_quant_storage,
            expected=section["dtype"],
        )
    return made


def lora_config(config: dict[str, Any]) -> LoraConfig:
    """The LoraConfig, with the chat tokens' rows trainable where that is asked for."""
    if not config["model"]["train_chat_tokens"]:
        return options(LoraConfig, "lora", config["lora"])
    tokenizer = AutoTokenizer.from_pretrained(config["model"]["path"])
    rows = tokenizer.convert_tokens_to_ids(list(CHAT_TOKENS))
    return options(LoraConfig, "lora", config["lora"], trainable_token_indices={"embed_tokens": rows, "lm_head": rows})


def load(config: dict[str, Any], device: torch.device, adapter: Path | None = None) -> PeftModel:
    """The sharded model on this rank's device; its LoRA weights from `adapter`, or fresh from the seed."""
    section = config["model"]
    dtype = getattr(torch, section["dtype"])
    folder = Path(section["path"])
    model = build(folder, dtype, quantization(config), lora_config(config), section["attn_implementation"])
    model.config.use_cache = False
    load_sharded(
        model,
        folder,
        LoraWeights(config["sft"]["seed"], adapter),
        mesh=init_device_mesh(device.type, (dist.get_world_size(),), mesh_dim_names=("fsdp",)),
        device=device,
        dtype=dtype,
        reduce_dtype=getattr(torch, config["fsdp"]["reduce_dtype"]),
        reshard_after_forward=config["fsdp"]["reshard_after_forward"],
        cpu_offload=config["fsdp"]["cpu_offload"],
    )
    check_sharded(model, dist.get_world_size())
    return model


def end() -> None:
    """Leave together: a rank that ends early looks like a failure to the others."""
    dist.barrier()
    dist.destroy_process_group()
