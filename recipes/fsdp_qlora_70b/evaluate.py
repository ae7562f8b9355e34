"""Held-out loss, perplexity and sample answers, before and after, through the sharded model.

    torchrun --nproc-per-node N evaluate.py --config RUN/train/config.yaml --adapter RUN/adapter --output FOLDER

One model serves both: with the adapter turned off it is the base as it was trained on. So a model that
fits to train fits to evaluate, whether or not its merged form does.
"""

from __future__ import annotations

from common.process import die_with_parent

die_with_parent()  # first: importing torch takes seconds, in which the run may be killed

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as functional
from data import Collator
from datasets import load_from_disk
from peft import PeftModel
from setup import begin, end, load, read_config
from torch.distributed.fsdp import register_fsdp_forward_method
from transformers import AutoTokenizer

from common.cli import call
from common.evaluation import perplexity
from common.evaluation.perplexity import LossSum
from common.evaluation.result import Result, write
from common.evaluation.transformers_backend import generate

POSITIONS_AT_ONCE = 512  # of the logits turned to fp32: 512 x 128,256 x 4 bytes are 250 MiB


def held_out_loss(model: PeftModel, rows: Any, collate: Collator, rows_at_once: int, device: torch.device) -> LossSum:
    """The loss over `rows`, each rank computing its part.

    Every rank takes part in every forward pass, because sharded weights are gathered from all: a rank
    that has run out of rows repeats its last with all labels masked.
    """
    rank, world = dist.get_rank(), dist.get_world_size()
    sums = torch.zeros(2, dtype=torch.float64)
    for start in range(0, len(rows), rows_at_once * world):
        mine = range(start + rank * rows_at_once, min(start + (rank + 1) * rows_at_once, len(rows)))
        batch = collate([rows[index] for index in mine] or [rows[0]])
        if not mine:
            batch["labels"].fill_(-100)
        labels = batch.pop("labels")[:, 1:]
        with torch.no_grad():
            # With a cache transformers does not look for document boundaries in position_ids
            logits = model(**{k: v.to(device) for k, v in batch.items()}, use_cache=False).logits[:, :-1].cpu()
        for part, target in zip(logits.split(POSITIONS_AT_ONCE, 1), labels.split(POSITIONS_AT_ONCE, 1), strict=True):
            sums[0] += functional.cross_entropy(part.flatten(0, 1).float(), target.flatten(), reduction="sum")
            sums[1] += (target != -100).sum()
    dist.all_reduce(sums)
    return LossSum(float(sums[0]), int(sums[1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--adapter", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    config, arguments = read_config(parser)
    device = begin(config["platform"])
    model = load(config, device, arguments.adapter)
    model.eval()
    # generate() calls the model inside the PEFT wrapper, past the hooks that gather the root's weights
    register_fsdp_forward_method(model, "generate")
    tokenizer = AutoTokenizer.from_pretrained(config["model"]["path"])
    data = Path(config["data"]["path"])
    rows = load_from_disk(str(data / "eval"))
    prompts = []
    if (file := data / "eval" / "prompts.jsonl").exists():  # not there with evaluate.prompts=0
        prompts = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    end_id = json.loads((data / "meta.json").read_text(encoding="utf-8"))["end_of_answer_id"]
    section = config["evaluate"]

    def measure() -> tuple[LossSum, list[list[int]]]:
        loss = held_out_loss(model, rows, Collator(tokenizer.pad_token_id), section["micro_batch_size"], device)
        if not prompts:
            return loss, []
        answers = generate(
            model,
            [prompt["prompt_ids"] for prompt in prompts],
            pad_id=tokenizer.pad_token_id,
            eos_ids=[end_id],
            max_new_tokens=section["max_new_tokens"],
            batch_size=len(prompts),
        )
        return loss, answers

    after, answers_after = measure()
    with model.disable_adapter():
        before, answers_before = measure()
    results = perplexity.results(before, after)
    if prompts:
        results.append(generation_result(prompts, answers_before, answers_after, tokenizer, end_id))
    if dist.get_rank() == 0:
        arguments.output.mkdir(parents=True, exist_ok=True)
        write(arguments.output, results)
    end()


def generation_result(
    prompts: list[dict[str, Any]], before: list[list[int]], after: list[list[int]], tokenizer: Any, end_id: int
) -> Result:
    """Sample answers, and the share of them that ended by themselves rather than at the token limit."""
    ended = [sum(answer[-1:] == [end_id] for answer in answers) / len(prompts) for answers in (before, after)]
    samples = [
        {
            "prompt": prompt["prompt"],
            "reference": prompt["reference"],
            "before": tokenizer.decode(answer_before, skip_special_tokens=True),
            "after": tokenizer.decode(answer_after, skip_special_tokens=True),
        }
        for prompt, answer_before, answer_after in zip(prompts, before, after, strict=True)
    ]
    return Result("sample answers", "ended by themselves", "eval", len(prompts), ended[0], ended[1], True, samples)


if __name__ == "__main__":
    sys.exit(call(main))
