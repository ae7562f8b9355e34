"""From RUN/train/config.yaml to nnScaler's own arguments, for train.py, merge.py and the tests."""

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

import patches
from common.errors import UserError, did_you_mean

# The rotary frequencies are buffers: in bf16 they would turn a position of 8,000 by a radian or more
PRECISION = {
    "bfloat16": {"param": "bf16", "buffer": "fp32", "input": "bf16"},
    "float32": {"param": "fp32", "buffer": "fp32", "input": "fp32"},
}
POLICIES = ("autodist", "dp", "tp", "pp", "hybrid")
PIPELINES = ("pp", "hybrid")


def read_config(parser: argparse.ArgumentParser) -> tuple[dict[str, Any], argparse.Namespace]:
    """Parse the command line, which has --config, and read the configuration that it names."""
    parser.add_argument("--config", type=Path, required=True)
    arguments = parser.parse_args()
    config: dict[str, Any] = yaml.safe_load(arguments.config.read_text(encoding="utf-8"))
    return config, arguments


def options(kind: type, section: str, values: dict[str, Any], **more: Any) -> Any:
    """`kind(**values, **more)`, where an unknown key is an error that names the nearest right one."""
    known = set(inspect.signature(kind).parameters)
    for key in values:
        if key not in known:
            raise UserError(
                f"config.{section}.{key}: {kind.__name__} has no such option", hint=did_you_mean(key, known)
            )
    return kind(**{**values, **more})


def begin(platform: dict[str, Any]) -> None:
    """Apply patches and join the other processes, before nnScaler would do so for NVIDIA alone."""
    if "LOCAL_RANK" not in os.environ:
        raise UserError("this script is started through torchrun", hint="run.sh --dry-run shows the command")
    apply_patches(platform)
    if platform["device"] != "cpu":
        torch.accelerator.set_device_index(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group(platform["backend"])


def apply_patches(platform: dict[str, Any]) -> None:
    if platform["plugin"]:
        importlib.import_module(platform["plugin"])
    for name in platform["patches"]:
        patches.apply(name)


def end() -> None:
    """Leave together: a rank that ends early looks like a failure to the others."""
    dist.barrier()
    dist.destroy_process_group()


def plan_devices(config: dict[str, Any]) -> int:
    """Ranks that share one copy of the model. Raises UserError where the policy cannot do as asked."""
    policy, section = config["trainer"]["pas_policy"], config["parallel"]
    if section["recompute"] and policy != "autodist":
        raise UserError(
            f"the policy {policy} computes nothing again in the backward pass",
            found="train.gradient_checkpointing=true",
            hint="--set train.gradient_checkpointing=false, or parallel.plugin=autodist",
        )
    if policy not in POLICIES:
        raise UserError("parallel.plugin names no policy", found=policy, expected=", ".join(POLICIES))
    tensor, pipeline = section["tensor"] or 1, section["pipeline"] or 1
    if policy == "dp" and tensor * pipeline > 1:
        raise UserError("the policy dp shares nothing: parallel.tensor_parallel and pipeline_parallel are 1")
    if policy in ("tp", "autodist") and pipeline > 1:
        raise UserError(f"the policy {policy} makes no pipeline", hint="parallel.plugin=pp or hybrid does")
    if policy == "pp" and tensor > 1:
        raise UserError("the policy pp splits no matrices", hint="parallel.plugin=hybrid does both")
    if policy in PIPELINES and pipeline == 1:
        raise UserError(f"the policy {policy} needs parallel.pipeline_parallel of 2 or more")
    return int(tensor * pipeline)


def pas_config(config: dict[str, Any]) -> dict[str, Any]:
    """What the policy reads: each one its own words, because a word that is not read would be ignored in silence."""
    policy = config["trainer"]["pas_policy"]
    if policy in PIPELINES:
        micro_batches = config["trainer"]["grad_accumulation_steps"]
        return {"pipeline_nstages": config["parallel"]["pipeline"], "pipeline_nmicros": micro_batches}
    if policy != "autodist":
        return {}
    values = dict(config["pas_config"])
    if not config["parallel"]["recompute"]:
        values.pop("recompute_modules")
    if config["platform"]["device"] == "cpu":
        values["parallel_profile"] = False  # it counts CUDA devices, and would measure nothing
    return values
