"""Held-out loss and perplexity before and after, each process scoring its part with transformers alone.

    torchrun --nproc-per-node N evaluate.py --config RUN/train/config.yaml --model RUN/model --output FOLDER

nnScaler has no part in it: what is scored is what was exported.
"""

from __future__ import annotations

from common.process import die_with_parent

die_with_parent()  # first: importing torch takes seconds, in which the run may be killed

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as functional
from datasets import load_from_disk
from setup import end, read_config
from transformers import AutoModelForCausalLM

from common.cli import call
from common.evaluation import perplexity
from common.evaluation.perplexity import LossSum
from common.evaluation.result import Result, write

POSITIONS_AT_ONCE = 512  # of the logits turned to fp32: 512 x 128,256 x 4 bytes are 250 MiB


def held_out_loss(folder: Path, rows: Any, rows_at_once: int, dtype: torch.dtype, device: torch.device) -> LossSum:
    """The loss over `rows`, one document each. Every process holds the whole model and scores each so-many-th batch."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(device).eval()
    sums = torch.zeros(2, dtype=torch.float64)
    for start in range(dist.get_rank() * rows_at_once, len(rows), dist.get_world_size() * rows_at_once):
        batch = [rows[index] for index in range(start, min(start + rows_at_once, len(rows)))]
        longest = max(len(row["input_ids"]) for row in batch)
        ids, labels = torch.zeros(len(batch), longest, dtype=torch.long), torch.full((len(batch), longest), -100)
        for index, row in enumerate(batch):  # what stands after a document is seen by no token of it
            ids[index, : len(row["input_ids"])] = torch.tensor(row["input_ids"])
            labels[index, : len(row["labels"])] = torch.tensor(row["labels"])
        with torch.no_grad():
            logits = model(ids.to(device), use_cache=False).logits[:, :-1]
        targets = labels[:, 1:].to(device)
        for part, target in zip(logits.split(POSITIONS_AT_ONCE, 1), targets.split(POSITIONS_AT_ONCE, 1), strict=True):
            sums[0] += functional.cross_entropy(part.flatten(0, 1).float(), target.flatten(), reduction="sum").cpu()
            sums[1] += (target != -100).sum().cpu()
    dist.all_reduce(sums)
    return LossSum(float(sums[0]), int(sums[1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    config, arguments = read_config(parser)
    kind = config["platform"]["device"]
    device = torch.device("cpu") if kind == "cpu" else torch.device(kind, int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("gloo")  # two numbers are summed, on the host
    rows = load_from_disk(str(Path(config["data"]["path"]) / "eval"))
    at_once, dtype = config["evaluate"]["micro_batch_size"], getattr(torch, config["export"]["dtype"])
    after = held_out_loss(arguments.model, rows, at_once, dtype, device)
    if config["model"]["from_scratch"]:  # there was no model before
        results = [
            Result("held-out data", "loss", "eval", after.tokens, None, after.mean, False),
            Result("held-out data", "perplexity", "eval", after.tokens, None, after.perplexity, False),
        ]
    else:
        before = held_out_loss(Path(config["model"]["path"]), rows, at_once, dtype, device)
        results = perplexity.results(before, after)
    if dist.get_rank() == 0:
        arguments.output.mkdir(parents=True, exist_ok=True)
        write(arguments.output, results)
    end()


if __name__ == "__main__":
    sys.exit(call(main))
