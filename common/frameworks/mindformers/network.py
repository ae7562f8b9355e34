"""A MindFormers Llama for evaluation: built once, filled with one set of weights after the other."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import mindspore as ms

from common.errors import RunError, UserError

INDEX = "model.safetensors.index.json"


def build(model_config: dict[str, Any]) -> Any:
    """The network of a section `model.model_config`, without LoRA, not in training."""
    from mindformers.models.llama import LlamaConfig, LlamaForCausalLM

    values = {key: value for key, value in model_config.items() if key not in ("type", "pet_config")}
    network = LlamaForCausalLM(LlamaConfig(**values))
    network.set_train(False)
    return network


def fill(network: Any, weights: Path) -> Any:
    """Put `weights` into `network`: a .ckpt file, or a model folder in Hugging Face layout.

    Raises RunError where a weight is missing, or one is left over: MindSpore only warns, and goes on with
    random numbers.
    """
    found = of_checkpoint(weights) if weights.suffix == ".ckpt" else of_folder(weights, network)
    names = {each.name: each for each in network.get_parameters()}
    for name, value in found.items():
        if name in names and value.dtype != names[name].dtype:
            found[name] = ms.Parameter(value.astype(names[name].dtype), name=name)
    missing, left = ms.load_param_into_net(network, found)
    if missing or left:
        shown = ", ".join([*missing, *left][:5])
        raise RunError("the weights are not the network's", file=weights, found=f"missing or left over: {shown}")
    return network


def of_checkpoint(file: Path) -> dict[str, Any]:
    """The model's weights in a .ckpt, without the optimizer's state and counters."""
    from common.weights.layouts import is_training_state

    return {name: value for name, value in ms.load_checkpoint(str(file)).items() if not is_training_state(name)}


def of_folder(folder: Path, network: Any) -> dict[str, Any]:
    """The weights of a Hugging Face folder, under MindFormers' names."""
    single = folder / "model.safetensors"
    files = {single} if single.is_file() else set()
    with contextlib.suppress(FileNotFoundError):
        content = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        files = {folder / name for name in content["weight_map"].values()}
    if not files:
        raise UserError("no weights", file=folder, expected=f"model.safetensors or {INDEX}")
    found: dict[str, Any] = {}
    for file in sorted(files):
        found.update(ms.load_checkpoint(str(file), format="safetensors"))
    made: dict[str, Any] = type(network).convert_weight_dict(found, model_config=network.config)
    return made
