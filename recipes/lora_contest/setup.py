"""From RUN/train/config.yaml to a MindFormers configuration with its context built, for training and evaluation."""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import Any

from common.frameworks.mindformers import configuration
from common.frameworks.mindformers.configuration import Run

LORA_B = "*mindpet_delta_lora_b"


def read_config(parser: argparse.ArgumentParser) -> tuple[Run, dict[str, Any], argparse.Namespace]:
    """Parse the command line, which has --config, and read the configuration that it names."""
    parser.add_argument("--config", type=Path, required=True)
    arguments = parser.parse_args()
    run, config = configuration.read(arguments.config)
    set_learning_rates(config, config.pop("lora_plus")["learning_rate_ratio"])
    return run, config, arguments


def set_learning_rates(config: dict[str, Any], ratio: float) -> None:
    """LoRA+ (Hayou et al. 2024, arXiv 2402.12354): B learns `ratio` times as fast as A. With 1, plain LoRA."""
    if ratio == 1:
        return
    schedule = config["lr_schedule"]
    faster = {**copy.deepcopy(schedule), "learning_rate": schedule["learning_rate"] * ratio, "params": [LORA_B]}
    config["grouped_lr_schedule"] = {"default": copy.deepcopy(schedule), "grouped": [faster]}
