"""RUN/train/config.yaml: MindFormers' own YAML, and a section `run` of ours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from common.errors import UserError, did_you_mean

WEIGHTS = "llama3.ckpt"
MODEL_CONFIG = "model_config.yaml"


@dataclass(frozen=True)
class Run:
    """What the section `run` says: where things are, and what is not MindFormers' to know."""

    weights: Path
    """The base model in MindSpore's layout: llama3.ckpt, model_config.yaml, tokenizer."""
    data: Path
    """Prepared data: train.mindrecord, train/, eval/, meta.json."""
    metrics: Path
    tensorboard: Path
    patches: list[str]
    max_steps: int = -1
    """Optimizer steps; -1: num_train_epochs decides."""
    num_train_epochs: float = 1.0
    processes: int = 1
    """Processes of all nodes together: set from the launch, not from the file."""
    evaluate: dict[str, Any] | None = None
    """micro_batch_size and max_new_tokens of evaluation."""


def read(file: Path) -> tuple[Run, dict[str, Any]]:
    """The section `run` and the rest, MindFormers' own, with the model's sizes and ids put in.

    Sizes and token ids come from the weights' model_config.yaml, so they cannot disagree with the weights
    or the tokenizer; what the file states itself has precedence. Raises UserError for a key of `run` that
    is not known.
    """
    content: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    section = content.pop("run")
    for key in section:
        if key not in Run.__dataclass_fields__:
            hint = did_you_mean(key, Run.__dataclass_fields__)
            raise UserError(f"config.run.{key}: there is no such option", file=file, hint=hint)
    paths = {key: Path(section[key]) for key in ("weights", "data", "metrics", "tensorboard")}
    run = Run(**{**section, **paths})
    content["model"] = model(run.weights, content["model"])
    return run, content


def model(weights: Path, stated: dict[str, Any]) -> dict[str, Any]:
    """MindFormers' section `model`: what the weights say of themselves, and `stated` over it.

    Raises UserError where `stated` contradicts the weights' sizes or ids.
    """
    found: dict[str, Any] = yaml.safe_load((weights / MODEL_CONFIG).read_text(encoding="utf-8"))["model"]
    own = found["model_config"]
    fixed = ("hidden_size", "num_layers", "num_heads", "n_kv_heads", "intermediate_size", "vocab_size", "theta")
    for key in (*fixed, "bos_token_id", "eos_token_id", "pad_token_id"):
        value = stated["model_config"].get(key, own.get(key))
        if value != own.get(key):
            raise UserError(
                f"config.model.model_config.{key} contradicts the weights",
                file=weights / MODEL_CONFIG,
                found=value,
                expected=own.get(key),
                hint="leave it out: it is read from the weights",
            )
    return {**found, **stated, "model_config": {**own, **stated["model_config"]}}
