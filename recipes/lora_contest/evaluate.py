"""The base model's and the fine-tuned model's answers to the problems and to the reading test.

    python evaluate.py --config RUN/train/config.yaml --model RUN/model --journal RUN/answers.jsonl --output FOLDER

One network on one device, filled with the one set of weights and then with the other. Every batch of answers is on
the disk at once: an interrupted evaluation goes on where it was. score.py judges the answers.
"""

from __future__ import annotations

from common.process import die_with_parent

die_with_parent()  # first: importing mindspore takes seconds, in which the run may be killed

import argparse
import functools
import json
import sys
from pathlib import Path
from typing import Any

from setup import read_config

from common.cli import call
from common.evaluation.resumable import Journal, answer_all, say
from common.files import fingerprint, write_text
from common.frameworks.mindformers import generation, network, session
from common.frameworks.mindformers.configuration import WEIGHTS, Run

TASKS = {"problems": "eval/prompts.jsonl", "reading": "reading.jsonl"}
MULTIPLE = 32  # that the length of a row is rounded up to


def prompts_of(run: Run, task: str) -> list[list[int]]:
    lines = (run.data / TASKS[task]).read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["prompt_ids"] for line in lines]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--model", "--journal", "--output"):
        parser.add_argument(name, type=Path, required=True)
    run, config, arguments = read_config(parser)
    prompts = {task: prompts_of(run, task) for task in TASKS}
    model: dict[str, Any] = config["model"]["model_config"]
    section = run.evaluate or {}
    new, rows = section["max_new_tokens"], section["micro_batch_size"]
    longest = max(len(prompt) for asked in prompts.values() for prompt in asked) + new
    model["seq_length"] = -(-longest // MULTIPLE) * MULTIPLE  # not the training's: passages are longer
    model["batch_size"] = rows
    session.begin(config, run.patches, processes=1)
    net = network.build(model)
    options = {
        "pad_id": model["pad_token_id"],
        "eos_ids": [run.meta["end_of_answer_id"]],
        "max_new_tokens": new,
        "batch_size": rows,
    }
    generate = functools.partial(generation.generate, net, **options)
    for side, weights in (("before", run.weights / WEIGHTS), ("after", arguments.model)):
        network.fill(net, weights)
        with Journal(arguments.journal, {"weights": fingerprint(weights), **options}) as journal:
            for task, asked in prompts.items():
                label = f"{task}, {side}"
                answers = answer_all(asked, generate, batch_size=rows, journal=journal, progress=say(label))
                lines = (json.dumps(answer) for answer in answers)
                write_text(arguments.output / f"{task}-{side}.jsonl", "".join(line + "\n" for line in lines))


if __name__ == "__main__":
    sys.exit(call(main))
