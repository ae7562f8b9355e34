"""What is measured of a network before and after training: held-out loss and greedy answers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from common import tokenizer as tokenizers
from common.evaluation import perplexity
from common.evaluation.perplexity import LossSum
from common.evaluation.result import Result
from common.frameworks.mindformers.configuration import Run
from common.frameworks.mindformers.generation import generate
from common.frameworks.mindformers.loss import held_out_loss


@dataclass(frozen=True)
class Measured:
    loss: LossSum
    answers: list[list[int]]
    """New tokens for each held-out prompt."""


def prompts(run: Run) -> list[dict[str, Any]]:
    """The held-out prompts (prompt, prompt_ids, reference) that the data stage chose."""
    file = run.data / "eval" / "prompts.jsonl"
    if not file.exists():  # not there with evaluate.prompts=0
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def measure(network: Any, run: Run) -> Measured:
    """The network's held-out loss, and its answers to the held-out prompts."""
    config, options = network.config, run.evaluate or {}
    loss = held_out_loss(
        network,
        run.data / "eval",
        seq_length=config.seq_length,
        pad_id=config.pad_token_id,
        rows_at_once=options["micro_batch_size"],
    )
    asked = prompts(run)
    answers = generate(
        network,
        [prompt["prompt_ids"] for prompt in asked],
        pad_id=config.pad_token_id,
        eos_ids=[run.meta["end_of_answer_id"]],
        max_new_tokens=options["max_new_tokens"],
        batch_size=options["micro_batch_size"],
    )
    return Measured(loss, answers)


def results(before: Measured, after: Measured, run: Run) -> list[Result]:
    """The rows of evaluation.json; with prompts, the share of answers that ended by themselves, and samples."""
    found = perplexity.results(before.loss, after.loss)
    asked = prompts(run)
    if not asked:
        return found
    tokens = tokenizers.load(run.weights)
    end = run.meta["end_of_answer_id"]
    samples = [
        {
            "prompt": prompt["prompt"],
            "reference": prompt["reference"],
            "before": tokens.decode(one, skip_special=True),
            "after": tokens.decode(other, skip_special=True),
        }
        for prompt, one, other in zip(asked, before.answers, after.answers, strict=True)
    ]
    ended = [sum(answer[-1:] == [end] for answer in each.answers) / len(asked) for each in (before, after)]
    return [
        *found,
        Result("sample answers", "ended by themselves", "eval", len(asked), ended[0], ended[1], True, samples),
    ]
