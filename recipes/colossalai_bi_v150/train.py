"""Full-parameter fine-tuning of Llama 3 with ColossalAI's Booster.

    torchrun --nproc-per-node N train.py --config RUN/train/config.yaml
    colossalai run --nproc_per_node N train.py --config RUN/train/config.yaml

The plugin (3d: tensor, pipeline, sequence and data parallel with ZeRO; zero; gemini; ddp) is one word of the
configuration; the steps are the same under all of them. Labels in the prepared data are not shifted; loss.py shifts
them, once. Resuming is automatic: the newest complete checkpoint is continued.
"""

from __future__ import annotations

from common.process import die_with_parent

die_with_parent()  # first: importing torch takes seconds, in which the run may be killed

import argparse
import sys
from pathlib import Path
from typing import Any

import checkpoints
import torch.distributed as dist
from data import Batches, open_rows
from setup import (
    Place,
    begin,
    boost,
    end,
    find_place,
    learning_rate,
    make_plugin,
    read_config,
    release,
    weights_of,
)
from speed import write_speed
from trainer import Trainer
from transformers import AutoConfig

from common.cli import call


def make_batches(config: dict[str, Any], place: Place) -> Batches:
    data, train = config["data"], config["train"]
    return Batches(
        open_rows(Path(data["path"]) / "train", data["max_rows"]),
        pad_id=AutoConfig.from_pretrained(config["model"]["path"]).pad_token_id,
        micro_batch_size=train["micro_batch_size"],
        accumulation=train["gradient_accumulation_steps"],
        data_rank=place.data_rank,
        data_size=place.data_size,
        seed=train["seed"] if data["shuffle"] else None,
        max_length=data["max_length"] if data["padding"] == "max_length" else None,
        multiple=data["pad_to_multiple_of"] * place.sequence_size,
        together=place.stages > 1,
    )


def train(config: dict[str, Any]) -> Any:
    """Train as `config` says, from its newest complete checkpoint on: the model. Every rank calls this."""
    plugin = make_plugin(config)
    place = find_place(plugin)
    batches = make_batches(config, place)
    section = config["train"]
    steps = section["max_steps"] if section["max_steps"] > 0 else batches.steps(section["num_train_epochs"])
    learning_rate(config, 0, steps)  # what cannot be is found out before the model is made
    resume = checkpoints.last_complete(Path(config["checkpoints"]))
    if resume is not None:
        checkpoints.need_whole(resume)
    boosted = boost(config, plugin)
    booster, model, _ = boosted
    dist.barrier()  # nobody writes before all have looked
    if resume is None:
        booster.load_model(model, weights_of(Path(config["model"]["path"])))
    else:
        checkpoints.load(resume, *boosted)
    Trainer(config, place, plugin, boosted, batches).train(resume.step if resume else 0, steps)
    release(plugin)
    return model.unwrap()


def main() -> None:
    config, _ = read_config(argparse.ArgumentParser(description=__doc__))
    begin(config)
    train(config)
    if dist.get_rank() == 0:
        data = config["data"]
        rows = len(open_rows(Path(data["path"]) / "train", data["max_rows"]))
        write_speed(config, dist.get_world_size(), rows)
    end()


if __name__ == "__main__":
    sys.exit(call(main))
