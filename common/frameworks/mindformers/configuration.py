"""RUN/train/config.yaml: MindFormers' own YAML, and a section `run` of ours."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from common.errors import UserError, did_you_mean

WEIGHTS = "llama3.ckpt"
MODEL_CONFIG = "model_config.yaml"
# Which the weights and the tokenizer settle
FIXED = (
    "hidden_size",
    "num_layers",
    "num_heads",
    "n_kv_heads",
    "intermediate_size",
    "vocab_size",
    "theta",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)


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
    evaluate: dict[str, Any] | None = None
    """micro_batch_size and max_new_tokens of evaluation."""
    export: dict[str, Any] | None = None
    """dtype and shard_size of the exported model."""

    @property
    def meta(self) -> dict[str, Any]:
        """What the data stage says of the prepared data."""
        content: dict[str, Any] = json.loads((self.data / "meta.json").read_text(encoding="utf-8"))
        return content


def read(file: Path) -> tuple[Run, dict[str, Any]]:
    """The section `run` and the rest, MindFormers' own, with the model's sizes and ids put in.

    Sizes, bos and eos come from the weights' model_config.yaml, the pad id from the prepared data: they cannot
    disagree with the weights or the tokenizer. Raises UserError for a key of `run` that is not known.
    """
    content: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    section = content.pop("run")
    for key in section:
        if key not in Run.__dataclass_fields__:
            hint = did_you_mean(key, Run.__dataclass_fields__)
            raise UserError(f"config.run.{key}: there is no such option", file=file, hint=hint)
    paths = {key: Path(section[key]) for key in ("weights", "data", "metrics", "tensorboard")}
    run = Run(**{**section, **paths})
    content["model"] = model(run.weights, content["model"], run.meta["pad_id"])
    content["train_dataset_task"]["dataset_config"] = content["train_dataset"]
    return run, content


def model(weights: Path, stated: dict[str, Any], pad_id: int) -> dict[str, Any]:
    """MindFormers' section `model`: what the weights say of themselves, and `stated` over it.

    The pad id is that of the records: the model leaves out what equals it, and its own default is 0, a
    character. Raises UserError where `stated` contradicts the weights' sizes or ids.
    """
    found: dict[str, Any] = yaml.safe_load((weights / MODEL_CONFIG).read_text(encoding="utf-8"))["model"]
    own = {**found["model_config"], "pad_token_id": pad_id}
    for key in FIXED:
        if key in stated["model_config"] and stated["model_config"][key] != own.get(key):
            raise UserError(
                f"config.model.model_config.{key} contradicts the weights",
                file=weights / MODEL_CONFIG,
                found=stated["model_config"][key],
                expected=own.get(key),
                hint="leave it out: it is read from the weights",
            )
    return {**found, **stated, "model_config": {**own, **stated["model_config"]}}
