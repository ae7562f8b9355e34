"""Loads a model with MindFormers and answers prompts; common.evaluation.worker starts it.

The request comes as one JSON object on standard input, answers go as one JSON list of token ids a line to
standard output, a failure as {"error": TEXT}: the same words as common.evaluation.transformers_worker's.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any, TextIO

from common.cli import TRACEBACK_VARIABLE
from common.errors import EXIT_FAILED, UserError
from common.process import die_with_parent

STEP = 64  # sequence lengths are multiples of it: fewer of them are compiled


def sizes(stated: dict[str, Any], needed: int, batch_size: int) -> dict[str, int]:
    """Of the network that answers: tokens of a row, rows, and blocks of the cache of keys and values.

    `needed` is the longest prompt with its answer. There are `num_blocks` as stated, or as many as whole rows take:
    with fewer, paged attention would run out of them.
    """
    length = -(-needed // STEP) * STEP
    blocks = batch_size * -(-length // stated.get("block_size", 16))
    return {"seq_length": length, "batch_size": batch_size, "num_blocks": max(blocks, stated.get("num_blocks", 512))}


def work(request: dict[str, Any], answers: TextIO, output: str) -> None:
    """Write the answers to `answers`, one batch after the other; `output` is for what MindFormers leaves."""
    from common.frameworks.mindformers import configuration, generation, network, session

    if request["task"] != "generate":
        raise UserError("MindFormers' worker answers prompts", found=request["task"], expected="generate")
    if request["adapter"]:
        raise UserError("MindFormers asks whole models", file=request["adapter"], hint="name the run's model/ instead")
    config, prompts = request["config"], request["prompts"]
    run = config.pop("run")
    needed = max(map(len, prompts)) + request["max_new_tokens"]
    config["model"]["model_config"].update(sizes(config["model"]["model_config"], needed, request["batch_size"]))
    config["model"] = configuration.model(Path(request["run"]) / "weights", config["model"], request["pad_id"])
    config["output_dir"] = output
    made = session.begin(config, run["patches"], processes=1)
    import mindspore as ms

    ms.set_seed(request["seed"])
    net = network.fill(network.build(made.model.model_config), Path(request["model"]))
    sampling: dict[str, Any] = {}
    if request["temperature"] > 0:
        sampling = {"do_sample": True, "temperature": request["temperature"], "top_k": 0, "top_p": request["top_p"]}
    size = request["batch_size"]
    for start in range(0, len(prompts), size):
        batch = prompts[start : start + size]
        found = generation.generate(
            net,
            batch,
            pad_id=request["pad_id"],
            eos_ids=request["eos_ids"],
            max_new_tokens=request["max_new_tokens"],
            batch_size=min(size, len(prompts)),
            **sampling,
        )
        answers.writelines(json.dumps(answer) + "\n" for answer in found)
        answers.flush()


def main() -> int:
    die_with_parent()
    os.environ.setdefault("GLOG_v", "3")  # errors: MindSpore warns of much that is nobody's to change here
    # Libraries print to standard output: only answers may go there
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers, tempfile.TemporaryDirectory() as output:
        os.dup2(os.open(os.devnull, os.O_WRONLY) if not os.environ.get(TRACEBACK_VARIABLE) else 2, 1)
        here = Path.cwd()
        try:
            work(json.load(sys.stdin), answers, output)
        except Exception as error:  # whatever a framework raises ends in one message, said by the parent
            if os.environ.get(TRACEBACK_VARIABLE):
                traceback.print_exc()
            text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            answers.write(json.dumps({"error": text}) + "\n")
            return EXIT_FAILED
        finally:
            os.chdir(here)  # the folder that it worked in goes
    return 0


if __name__ == "__main__":
    sys.exit(main())
