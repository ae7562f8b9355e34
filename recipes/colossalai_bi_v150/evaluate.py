"""Held-out loss and the accuracy of final answers, of the base model and of the fine-tuned one.

    torchrun --nproc-per-node N evaluate.py --config RUN/train/config.yaml --model RUN/model --output FOLDER

Every process holds the whole model (16 GB for 8B in bf16) and answers its share of the problems, with transformers
alone: what is measured is the exported folder, as whoever takes it will load it.
"""

from __future__ import annotations

from common.process import die_with_parent

die_with_parent()  # first: importing torch takes seconds, in which the run may be killed

import argparse
import importlib
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from data import IGNORE, open_rows
from loss import token_loss_sum
from setup import Place, read_config
from transformers import AutoTokenizer, LlamaForCausalLM

from common.cli import call
from common.evaluation import perplexity
from common.evaluation.judge import judge
from common.evaluation.perplexity import LossSum
from common.evaluation.result import Result, write
from common.evaluation.transformers_backend import generate

ALONE = Place(0, 1, counts=True)
SAMPLES = 8  # of the answers that go into the report
MARKS = ("<|begin_of_text|>", "<|end_of_text|>")


@dataclass
class Measured:
    loss: LossSum
    answers: dict[int, str]
    """By the number of the prompt."""


def share(count: int) -> range:
    """This process's part of `count` things."""
    return range(dist.get_rank(), count, dist.get_world_size())


def held_out_loss(model: Any, rows: Any, device: torch.device) -> LossSum:
    """The loss over this process's share of `rows`, each by itself."""
    total, tokens = 0.0, 0
    for number in share(len(rows)):
        ids, labels = (torch.as_tensor(rows[number][key], dtype=torch.long)[None] for key in ("input_ids", "labels"))
        with torch.no_grad():
            logits = model(input_ids=ids.to(device), use_cache=False).logits
        total += token_loss_sum(logits, labels.to(device), ALONE, 0).item()
        tokens += int((labels[:, 1:] != IGNORE).sum())
    return LossSum(total, tokens)


def measure(folder: Path, config: dict[str, Any], prompts: list[dict[str, Any]], device: torch.device) -> Measured:
    """Loss and answers of the model in `folder`, over all processes."""
    dtype = getattr(torch, config["model"]["dtype"])
    model = LlamaForCausalLM.from_pretrained(folder, torch_dtype=dtype, attn_implementation="sdpa").to(device).eval()
    data = Path(config["data"]["path"])
    loss = held_out_loss(model, open_rows(data / "eval", None), device)
    mine = list(share(len(prompts)))
    meta = json.loads((data / "meta.json").read_text(encoding="utf-8"))
    answers = generate(
        model,
        [prompts[number]["prompt_ids"] for number in mine],
        pad_id=model.config.pad_token_id,
        eos_ids=[meta["end_of_answer_id"]],
        max_new_tokens=config["evaluate"]["max_new_tokens"],
        batch_size=config["evaluate"]["micro_batch_size"],
    )
    tokenizer = AutoTokenizer.from_pretrained(config["model"]["path"])
    texts = {number: tokenizer.decode(ids, skip_special_tokens=True) for number, ids in zip(mine, answers, strict=True)}
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, (loss.total, loss.tokens, texts))
    together = {number: text for part in parts for number, text in part[2].items()}
    return Measured(LossSum(sum(part[0] for part in parts), sum(part[1] for part in parts)), together)


def question(prompt: str) -> str:
    """The last question of a rendered prompt."""
    return plain(prompt.rpartition("Human: ")[2].removesuffix("Assistant: "))


def plain(text: str) -> str:
    """`text` without the template's control tokens."""
    for mark in MARKS:
        text = text.replace(mark, "")
    return text.strip()


def accuracy(prompts: list[dict[str, Any]], before: dict[int, str], after: dict[int, str]) -> Result:
    """The share of problems whose final number is the reference's."""

    def right(number: int, answer: str) -> bool:
        prompt = prompts[number]
        return judge(question(prompt["prompt"]), plain(prompt["reference"]), answer).correct

    shares = [sum(right(number, each[number]) for number in each) / len(prompts) for each in (before, after)]
    samples = [
        {
            "prompt": question(prompt["prompt"]),
            "reference": plain(prompt["reference"]),
            "before": before[number],
            "after": after[number],
            "right before": right(number, before[number]),
            "right after": right(number, after[number]),
        }
        for number, prompt in enumerate(prompts[:SAMPLES])
    ]
    return Result("school math", "accuracy of final answers", "eval", len(prompts), *shares, True, samples)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    config, arguments = read_config(parser)
    platform = config["platform"]
    if platform["plugin"]:
        importlib.import_module(platform["plugin"])
    dist.init_process_group("gloo")  # what is exchanged are numbers and texts
    device = torch.device(platform["device"])
    if device.type != "cpu":
        device = torch.device(device.type, int(os.environ["LOCAL_RANK"]))
    prompts: list[dict[str, Any]] = []
    if (file := Path(config["data"]["path"]) / "eval" / "prompts.jsonl").exists():  # not there with evaluate.prompts=0
        prompts = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    before = measure(Path(config["model"]["path"]), config, prompts, device)
    after = measure(arguments.model, config, prompts, device)
    if dist.get_rank() == 0:
        arguments.output.mkdir(parents=True, exist_ok=True)
        results = perplexity.results(before.loss, after.loss)
        if prompts:
            results.append(accuracy(prompts, before.answers, after.answers))
        write(arguments.output, results)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    sys.exit(call(main))
