"""From RUN/train/config.yaml to a boosted model: processes, plugin, model, optimizer, schedule.

colossalai is imported where it is used, because its patches must be applied first.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import inspect
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import yaml
from transformers import AutoConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

import patches
from common.errors import UserError, did_you_mean

PLUGINS = {
    "3d": "HybridParallelPlugin",
    "zero": "LowLevelZeroPlugin",
    "gemini": "GeminiPlugin",
    "ddp": "TorchDDPPlugin",
}
PRECISIONS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


def read_config(parser: argparse.ArgumentParser) -> tuple[dict[str, Any], argparse.Namespace]:
    """Parse the command line, which has --config, and read the configuration that it names."""
    parser.add_argument("--config", type=Path, required=True)
    arguments = parser.parse_args()
    config: dict[str, Any] = yaml.safe_load(arguments.config.read_text(encoding="utf-8"))
    return config, arguments


def options(kind: Any, section: str, values: dict[str, Any], **more: Any) -> Any:
    """`kind(**values, **more)`, where an unknown key is an error that names the nearest right one."""
    known = set(inspect.signature(kind).parameters) - {"self", "defaults", "model_params"}
    for key in values:
        if key not in known:
            raise UserError(
                f"config.{section}.{key}: {kind.__name__} has no such option", hint=did_you_mean(key, known)
            )
    return kind(**values, **more)


def begin(config: dict[str, Any]) -> torch.device:
    """Apply patches, make the platform known to torch, join the other processes: this rank's device."""
    if "LOCAL_RANK" not in os.environ:
        raise UserError("this script is started through torchrun or colossalai run", hint="see run.sh --dry-run")
    os.environ.setdefault("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1")  # ColossalAI calls torch.load without saying so
    platform = config["platform"]
    for name in platform["patches"]:
        patches.apply(name)
    if platform["plugin"]:
        importlib.import_module(platform["plugin"])
    import colossalai
    from colossalai.accelerator import get_accelerator

    if get_accelerator().name != platform["device"]:
        raise UserError(
            "ColossalAI found another device than the platform's",
            found=get_accelerator().name,
            expected=platform["device"],
        )
    colossalai.launch_from_torch(backend=platform["backend"], seed=config["train"]["seed"], verbose=False)
    return torch.device(get_accelerator().get_current_device())


def release(plugin: Any) -> None:
    """Give back the process groups of `plugin`, which it would do when Python ends and all groups are gone."""
    dist.barrier()
    mesh = getattr(plugin, "pg_mesh", None)
    if mesh is not None:
        mesh.destroy_mesh_process_groups()
        mesh._ranks_to_group.clear()


def end() -> None:
    """Leave together: a rank that ends early looks like a failure to the others."""
    dist.barrier()
    dist.destroy_process_group()


@dataclass(frozen=True)
class Place:
    """Where this rank stands among the others."""

    data_rank: int
    data_size: int
    counts: bool
    """Whether this rank's loss is its data-parallel group's: on the last stage, and once for all that share a row."""
    sequence_size: int = 1
    stages: int = 1
    tensor_group: dist.ProcessGroup | None = None
    """The ranks over which the logits are split by vocabulary; None where each rank has all of them."""


def make_plugin(config: dict[str, Any]) -> Any:
    """The Booster plugin. Raises UserError for a combination that ColossalAI has not."""
    import colossalai.booster.plugin as plugins

    name = config["plugin"]
    if name not in PLUGINS:
        raise UserError(
            f"parallel.plugin: there is no plugin {name!r}",
            expected=", ".join(PLUGINS),
            hint=did_you_mean(str(name), PLUGINS),
        )
    values = dict(config["plugins"][name])
    precision = PRECISIONS[config["model"]["dtype"]]
    check(config, name, precision)
    if name == "3d":
        values |= three_d(config, values, precision)
    elif name in ("zero", "gemini"):
        values["precision"] = precision
    if name == "gemini":  # gradients then have chunks of their own, beside those of the weights
        values["enable_gradient_accumulation"] = config["train"]["gradient_accumulation_steps"] > 1
    if name in ("3d", "ddp"):
        values["broadcast_buffers"] = False  # a Llama has none that training changes
    kind = getattr(plugins, PLUGINS[name])
    return options(kind, f"plugins.{name}", values)


def check(config: dict[str, Any], name: str, precision: str) -> None:
    """Raise UserError for a combination that ColossalAI has not, or that does not fit the model."""
    sizes = config["plugins"]["3d"]
    tp, pp, sp, zero = (sizes[key] for key in ("tp_size", "pp_size", "sp_size", "zero_stage"))
    train = config["train"]
    model = json.loads((Path(config["model"]["path"]) / "config.json").read_text(encoding="utf-8"))
    groups, layers = model["num_key_value_heads"], model["num_hidden_layers"]
    sharing = tp * (sp if sizes["sequence_parallelism_mode"] == "all_to_all" else 1)  # ranks among which heads divide
    recomputed = config["model"]["recomputed_layers"] or []
    wrong: list[tuple[bool, str, str]] = [
        (name != "3d" and max(tp, pp, sp) > 1, f"plugin {name} only parallelises over data", "take parallel.plugin=3d"),
        (name == "zero" and zero not in (1, 2), "plugin zero has stages 1 and 2", "set parallel.zero_stage"),
        (name in ("gemini", "ddp") and zero > 0, f"plugin {name} has no ZeRO stage", "set parallel.zero_stage=0"),
        (name == "gemini" and precision == "fp32", "Gemini trains in bf16 or fp16", "set model.dtype=bfloat16"),
        (name == "ddp" and precision != "fp32", "plugin ddp trains in fp32", "set model.dtype=float32"),
        (name == "3d" and zero == 3, "plugin 3d has ZeRO stages 0, 1 and 2", "set parallel.zero_stage"),
        (name == "3d" and pp > 1 and zero > 1, "pipelines go with ZeRO 0 or 1", "set parallel.zero_stage=1"),
        (name == "3d" and zero > 0 and precision == "fp32", "plugin 3d has ZeRO in bf16 only", "set model.dtype"),
        (
            groups % sharing > 0,
            f"the model's {groups} key-value heads do not divide among {sharing} ranks",
            "set parallel.tensor_parallel and parallel.sequence_parallel",
        ),
        (
            model["vocab_size"] % tp > 0,
            f"the model's vocabulary of {model['vocab_size']} does not divide among {tp} ranks",
            "set parallel.tensor_parallel",
        ),
        (pp > layers, f"{pp} stages of a pipeline cannot share {layers} layers", "set parallel.pipeline_parallel"),
        (
            max(recomputed, default=0) > math.ceil(layers / pp),
            f"train.recomputed_layers: {recomputed} are more than a stage has of {layers} layers",
            "set train.recomputed_layers",
        ),
        (precision == "fp16", "fp16 is not supported by this recipe", "set model.dtype=bfloat16"),
        (
            pp > train["gradient_accumulation_steps"],
            f"{pp} stages need as many micro-batches",
            f"set train.gradient_accumulation_steps={pp} or more",
        ),
    ]
    for is_wrong, problem, hint in wrong:
        if is_wrong:
            raise UserError(problem, hint=hint)


def three_d(config: dict[str, Any], values: dict[str, Any], precision: str) -> dict[str, Any]:
    """What HybridParallelPlugin needs beside what configs/ says."""
    more: dict[str, Any] = {
        "precision": precision,
        "enable_sequence_parallelism": values["sp_size"] > 1,
        # Shapes are sent along once, and taken to stay the same
        "enable_metadata_cache": config["data"]["padding"] == "max_length",
        # The loss is computed on logits that stay split by vocabulary, except where they are split by tokens
        "parallel_output": values["sp_size"] == 1,
        # No padding: ColossalAI trains with a padded vocabulary, but cannot save the optimizer's state of it
        "make_vocab_size_divisible_by": 1,
    }
    if values["sp_size"] == 1:
        more["sequence_parallelism_mode"] = None
    if values["enable_fused_normalization"] == "auto":
        more["enable_fused_normalization"] = importlib.util.find_spec("apex") is not None
    layers = config["model"]["recomputed_layers"]
    if layers is not None and config["model"]["gradient_checkpointing"]:
        from colossalai.shardformer import PipelineGradientCheckpointConfig

        if len(layers) != values["pp_size"]:
            raise UserError(
                "train.recomputed_layers has one number a pipeline stage",
                found=layers,
                expected=f"{values['pp_size']} numbers",
            )
        more["gradient_checkpoint_config"] = PipelineGradientCheckpointConfig(num_ckpt_layers_per_stage=layers)
    return more


def find_place(plugin: Any) -> Place:
    """Where this rank stands under `plugin`."""
    mesh = getattr(plugin, "pg_mesh", None)
    if mesh is None or not hasattr(plugin, "pp_axis"):
        return Place(dist.get_rank(), dist.get_world_size(), counts=True)
    last = plugin.pp_size == 1 or plugin.stage_manager.is_last_stage()
    first_of_row = mesh.coordinate(plugin.tp_axis) == 0 and mesh.coordinate(plugin.sp_axis) == 0
    split = plugin.tp_size > 1 and plugin.shard_config.parallel_output
    return Place(
        data_rank=mesh.coordinate(plugin.dp_axis),
        data_size=mesh.size(plugin.dp_axis),
        counts=last and first_of_row,
        sequence_size=plugin.sp_size,
        stages=plugin.pp_size,
        tensor_group=plugin.tp_group if split else None,
    )


def weights_of(folder: Path) -> str:
    """What ColossalAI loads: the folder where it has an index, else its one file."""
    single = folder / "model.safetensors"
    return str(single if single.exists() else folder / "model.safetensors.index.json")


def build(config: dict[str, Any]) -> LlamaForCausalLM:
    """The model without its weights. Raises UserError for a position embedding that this transformers has not."""
    folder = Path(config["model"]["path"])
    if scaling := json.loads((folder / "config.json").read_text(encoding="utf-8")).get("rope_scaling"):
        raise UserError(
            "this transformers knows the rotary embedding of Llama 3, not the scaled one of 3.1 and later",
            file=folder / "config.json",
            found=scaling,
        )
    settings = AutoConfig.from_pretrained(folder, attn_implementation="sdpa")
    settings.use_cache = False
    return LlamaForCausalLM(settings)


def boost(config: dict[str, Any], plugin: Any) -> tuple[Any, Any, Any]:
    """Booster, model and optimizer, each rank with its part of the model, whose weights are still to be loaded."""
    from colossalai.booster import Booster
    from colossalai.lazy import LazyInitContext
    from colossalai.nn.optimizer import HybridAdam

    lazy = config["plugin"] in ("3d", "gemini")  # no rank ever holds the whole model
    torch.set_default_dtype(getattr(torch, config["model"]["dtype"]))
    try:
        with LazyInitContext() if lazy else contextlib.nullcontext():
            model = build(config)
    finally:
        torch.set_default_dtype(torch.float32)
    if config["model"]["gradient_checkpointing"]:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    optimizer = options(HybridAdam, "optimizer", config["optimizer"], model_params=model.parameters())
    booster = Booster(plugin=plugin)
    model, optimizer, _, _, _ = booster.boost(model, optimizer)
    restore_rotary(model.unwrap())
    return booster, model, optimizer


def restore_rotary(model: Any) -> None:
    """Rotary frequencies in fp32 again, and in no checkpoint.

    Plugins turn the whole model to bf16, buffers too: frequencies are then off by up to 0.4 %, which at position
    8000 is several turns. Buffers that are not to be saved are saved all the same, so these are none any more.
    """
    for module in model.modules():
        if isinstance(module, LlamaRotaryEmbedding) and module.inv_freq is not None:  # other stages have theirs
            exponents = torch.arange(0, module.dim, 2, dtype=torch.int64).float() / module.dim
            frequencies = (1.0 / module.base**exponents).to(module.inv_freq.device)
            for name in list(module._buffers):
                delattr(module, name)
            module.inv_freq = frequencies


def learning_rate(config: dict[str, Any], step: int, steps: int) -> float:
    """The learning rate of step `step` of `steps`, the first being 0: linear warm-up, then cosine or constant.

    A function of the step alone: it steps under every plugin, and resuming needs no state. ColossalAI's
    CosineAnnealingWarmupLR goes above its peak after the warm-up and does not reach its minimum.
    """
    section, peak = config["lr_scheduler"], config["optimizer"]["lr"]
    warmup = section["warmup_steps"]
    if warmup is None:
        warmup = round(section["warmup_ratio"] * steps)
    if warmup >= steps:
        raise UserError(
            "the warm-up is as long as the training",
            found=f"{warmup} of {steps} steps",
            hint="set train.warmup_steps or train.warmup_ratio",
        )
    if step < warmup:
        return peak * (step + 1) / warmup
    if section["name"] == "constant":
        return peak
    if section["name"] != "cosine_with_warmup":
        raise UserError(
            f"train.lr_scheduler: there is no schedule {section['name']!r}", expected="cosine_with_warmup, constant"
        )
    lowest = section["eta_min_ratio"] * peak
    return lowest + (peak - lowest) * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2
