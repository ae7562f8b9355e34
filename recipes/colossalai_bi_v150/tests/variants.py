"""Trains one configuration after the other in the same processes, which saves their start.

    torchrun ... variants.py FOLDER...          each with a config.yaml

A folder NAME-resumed begins with the first checkpoint of NAME, and with what a kill leaves of the second.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import yaml
from setup import begin, end
from torch.nn.modules.module import register_module_forward_pre_hook
from train import train
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from common.process import die_with_parent


def rotary_error(model: Any) -> float:
    """The largest relative error of the rotary frequencies in any layer."""
    errors = [0.0]
    for module in model.modules():
        if getattr(module, "inv_freq", None) is not None:
            exact = 1.0 / module.base ** (torch.arange(0, module.dim, 2, dtype=torch.float64) / module.dim)
            errors.append(float((module.inv_freq.double() / exact - 1).abs().max()))
    return max(errors)


def main() -> None:
    die_with_parent()
    folders = [Path(name) for name in sys.argv[1:]]
    configs = [yaml.safe_load((folder / "config.yaml").read_text()) for folder in folders]
    begin(configs[0])
    computed = [0]

    def count(module: Any, _: Any) -> None:
        computed[0] += isinstance(module, LlamaDecoderLayer)

    register_module_forward_pre_hook(count)
    for folder, config in zip(folders, configs, strict=True):
        source = folder.with_name(folder.name.removesuffix("-resumed"))
        if source != folder and dist.get_rank() == 0:
            saved = (source / "checkpoints").iterdir()
            first, second = sorted(saved, key=lambda path: int(path.name.removeprefix("step-")))
            shutil.copytree(first, folder / "checkpoints" / first.name)
            partial = folder / "checkpoints" / f"{second.name}.partial"
            shutil.copytree(second, partial, ignore=shutil.ignore_patterns("running_states.json", "*.index.json"))
            shutil.copyfile(source / "metrics.jsonl", folder / "metrics.jsonl")
        dist.barrier()
        computed[0] = 0
        model = train(config)
        layers: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(layers, computed[0])
        if dist.get_rank() == 0:
            facts = {"rotary_error": rotary_error(model), "layers_computed": layers}
            (folder / "facts.json").write_text(json.dumps(facts))
    end()


if __name__ == "__main__":
    main()
