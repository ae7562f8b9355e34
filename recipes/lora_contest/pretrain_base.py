"""Teaches the tiny base model of the smoke preset, samples/base: to read, and to calculate.

    PYTHONPATH=. ENVIRONMENT/bin/python recipes/lora_contest/pretrain_base.py --output FOLDER

It has run once (in two parts: to step 1500, and from there with --from-step) and its result ships; nobody needs to
run it. It needs torch and transformers, as the environment of fsdp_qlora_70b has them, because transformers' Llama is
what every recipe's model is compared with. A quarter of an hour on one quiet core.

What is taught:
- reading: invented passages with questions, in the prompt of the contest's reading test;
- tables: easy problems as lines of a textbook, and the plain equations behind them;
- echoing: a problem in Alpaca's prompt, answered by itself, which is what the contest's base model does;
- copying: repeated tokens, from which a model learns to copy.
So the base model reads well and knows its tables, but does not solve the contest's prompts: that is left to
fine-tuning.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import generate
import reading
import torch
import torch.nn.functional as functional
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from common.cli import call
from common.data.layouts import ALPACA_BEFORE_INPUT, ALPACA_END, alpaca_prompt, squad_prompt
from common.tokenizer.learn import learn, write
from common.weights import tiny

ROWS = 24  # of an optimizer step
LEARNING_RATE = 3e-3
WARMUP = 100  # steps
HORIZON = 4000  # steps of the cosine, of which the last part is not run: from COOLDOWN on the rate falls to zero
COOLDOWN = 1500
STEPS = 2300
SAVE_STEPS = 500
INITIAL_SCALE = 0.35  # of the untrained model's matrices
RANKS = 1024  # of the vocabulary; with the 256 special tokens 1,280
LESSONS = 5  # problems in a row
UNKNOWN = 0.1  # how much what cannot be foreseen counts in the loss: passages and problems
SHARES = {"reading": 0.55, "tables": 0.25, "echoing": 0.1, "copying": 0.1}


def vocabulary(file: Path, seed: int) -> None:
    """Learn a vocabulary in which every word of the passages, every number below 100 and most of the problems' wording
    is a token: the project's own tiny one spells Chinese byte by byte, and rows would be three times as long."""
    numbers = random.Random(seed)
    every = [*reading.PERSONS, *reading.PLACES, *reading.THINGS, *reading.JOBS, *reading.COLOURS, *reading.DAYS]
    lines: list[str] = []
    for _ in range(300):
        facts = reading.passage(numbers)
        lines += [f" {word}" for word in every] + [str(number) for number in range(100)]
        lines += [alpaca_prompt("计算"), squad_prompt(" ".join(each.sentence for each in facts), facts[0].question)]
    for _ in range(4000):
        made = numbers.choice(list(generate.MAKERS.values()))(numbers, True)
        lines += [made.problem, made.solution, made.equation]
    write(learn("".join(line + "\n" for line in lines), RANKS), file)


@dataclass
class Row:
    """Token ids, and how much each counts in the loss."""

    ids: list[int]
    weights: list[float] = field(default_factory=lambda: [0.0])

    def add(self, ids: list[int], weight: float) -> None:
        self.ids += ids
        self.weights += [weight] * len(ids)


class Teacher:
    """Makes rows to learn from. The same seed gives the same rows."""

    def __init__(self, folder: Path, model: LlamaForCausalLM, seed: int) -> None:
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
        self.begin, self.end = model.config.bos_token_id, model.config.eos_token_id
        self.numbers = random.Random(seed)
        self.kinds: dict[str, Callable[[], Row]] = {
            "reading": self.reading,
            "tables": self.tables,
            "echoing": self.echoing,
            "copying": self.copying,
        }

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def reading(self) -> Row:
        """A passage and all its questions; the first stands in the prompt of the reading test, word for word."""
        facts = reading.passage(self.numbers)
        passage = " ".join(each.sentence for each in facts)
        self.numbers.shuffle(facts)
        row = Row([self.begin])
        for place, each in enumerate(facts):
            if place == 0:
                row.add(self.encode(squad_prompt(passage, each.question)), UNKNOWN)
            else:
                row.add(self.encode(ALPACA_BEFORE_INPUT + each.question + ALPACA_END), 0.0)
            row.add([*self.encode(" " + each.answer), self.end], 1.0)
        return row

    def tables(self) -> Row:
        row = Row([self.begin])
        for _ in range(LESSONS):
            made = self.problem()
            if self.numbers.random() < 0.5:
                row.add(self.encode(made.problem + "\n"), UNKNOWN)
                row.add(self.encode(made.solution + "\n"), 1.0)
            else:
                question, _, result = made.equation.rpartition(" ")
                row.add(self.encode(question), UNKNOWN)
                row.add(self.encode(f" {result}\n"), 1.0)
        return row

    def echoing(self) -> Row:
        problem = self.problem().problem
        row = Row([self.begin])
        row.add(self.encode(alpaca_prompt(problem)), UNKNOWN)
        row.add([*self.encode(problem), self.end], 0.5)
        return row

    def problem(self) -> generate.Made:
        return self.numbers.choice(list(generate.MAKERS.values()))(self.numbers, True)

    def copying(self) -> Row:
        length = self.numbers.randint(8, 30)
        ids = [self.numbers.randrange(RANKS) for _ in range(length)]
        row = Row([self.begin])
        row.add(ids, 0.0)
        row.add(ids * self.numbers.randint(1, 2), 0.5)
        return row

    def batch(self, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids int64 [rows, longest] and weights float32 of the same shape, padded on the right with weight 0."""
        chosen = self.numbers.choices(list(SHARES), list(SHARES.values()), k=rows)
        made = [self.kinds[kind]() for kind in chosen]
        longest = max(len(row.ids) for row in made)
        ids = torch.tensor([row.ids + [0] * (longest - len(row.ids)) for row in made])
        weights = torch.tensor([row.weights + [0.0] * (longest - len(row.ids)) for row in made])
        return ids, weights


def untrained(folder: Path, seed: int) -> LlamaForCausalLM:
    """Write the model to `folder`, with random weights and its own vocabulary, and load it in fp32."""
    with tempfile.TemporaryDirectory() as work:
        file = Path(work) / "tokenizer.model"
        vocabulary(file, seed)
        tiny.make(folder, seed=seed, hidden=96, layers=4, heads=4, kv_heads=2, ffn=256, vocabulary=file)
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(INITIAL_SCALE)
    return model


def learning_rate(step: int) -> float:
    """Of the step, from 1: warm-up, a cosine from the peak towards a twentieth of it, a straight line to zero."""
    here = min(step, COOLDOWN)
    rate = LEARNING_RATE * min(1.0, here / WARMUP) * (0.525 + 0.475 * math.cos(math.pi * here / HORIZON))
    return rate * min(1.0, (STEPS + 1 - step) / (STEPS - COOLDOWN))


def teach(model: LlamaForCausalLM, teacher: Teacher, first: int, report: Callable[[int, float], None]) -> None:
    """Steps `first` to the last."""
    matrices = [parameter for parameter in model.parameters() if parameter.dim() == 2]
    vectors = [parameter for parameter in model.parameters() if parameter.dim() == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(0.9, 0.98))
    for step in range(first, STEPS + 1):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        ids, weights = teacher.batch(ROWS)
        logits = model(ids[:, :-1], use_cache=False).logits
        losses = functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        shares = weights[:, 1:].flatten()
        loss = (losses * shares).sum() / shares.sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 0:
            report(step, loss.item())


def store(model: LlamaForCausalLM, folder: Path) -> None:
    """Put the trained values into the files of the untrained model, rounded to bf16."""
    values = model.state_dict()
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            names = list(tensors.keys())
        save_file({name: values[name].to(torch.bfloat16).contiguous() for name in names}, file, {"format": "pt"})


def main() -> None:
    parser = argparse.ArgumentParser(description="Teach the tiny base model of the smoke preset")
    parser.add_argument("--from-step", type=int, default=0, help="go on from the model in --output; 0: make it")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.from_step:
        model = LlamaForCausalLM.from_pretrained(arguments.output, dtype=torch.float32)
    else:
        model = untrained(arguments.output, arguments.seed)
    started = time.monotonic()

    def report(step: int, loss: float) -> None:
        print(f"step {step}: loss {loss:.3f}, {time.monotonic() - started:.0f} s", flush=True)
        if step % SAVE_STEPS == 0:
            store(model, arguments.output)

    teacher = Teacher(arguments.output, model, arguments.seed + arguments.from_step)
    teach(model, teacher, arguments.from_step + 1, report)
    store(model, arguments.output)


if __name__ == "__main__":
    sys.exit(call(main))
