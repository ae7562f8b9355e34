"""Loads a model with transformers, answers prompts or measures losses: what needs a framework.

Standard library and the framework only. The request comes as one JSON object on standard input; answers go
as one JSON list a line to standard output: token ids, or the sum of a loss and its tokens. A failure goes
as {"error": TEXT}.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
import traceback
from typing import Any, TextIO

from common.cli import TRACEBACK_VARIABLE
from common.errors import EXIT_FAILED
from common.evaluation.transformers_backend import generate
from common.evaluation.transformers_loss import losses
from common.process import die_with_parent

_DTYPE_SINCE = (4, 56)  # transformers: before, the argument `dtype` was called torch_dtype


def load(request: dict[str, Any]) -> Any:
    """The model of `request`, in evaluation mode; nothing is fetched and no code of the model's is run."""
    import torch
    import transformers

    if request["plugin"]:
        importlib.import_module(request["plugin"])
    version = tuple(int(part) for part in transformers.__version__.split(".")[:2])
    dtype = request["dtype"] if request["dtype"] == "auto" else getattr(torch, request["dtype"])
    options: dict[str, Any] = {"dtype" if version >= _DTYPE_SINCE else "torch_dtype": dtype}
    if request["quantization"]:
        options["quantization_config"] = transformers.BitsAndBytesConfig(**request["quantization"])
    if importlib.util.find_spec("accelerate"):  # without it the model stays where it is loaded, in the host's memory
        options["device_map"] = request["device_map"]
    model = transformers.AutoModelForCausalLM.from_pretrained(
        request["model"], local_files_only=True, trust_remote_code=False, use_safetensors=True, **options
    )
    if request["adapter"]:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, request["adapter"], local_files_only=True)
    return model.eval()


def work(request: dict[str, Any], answers: TextIO) -> None:
    """Write the answers to `answers`, one batch after the other."""
    import torch

    if request["task"] == "loss":
        for each in losses(load(request), request["documents"], request["pad_id"], request["batch_size"]):
            print(json.dumps(each), file=answers, flush=True)
        return
    torch.manual_seed(request["seed"])
    model = load(request)
    prompts = request["prompts"]
    for start in range(0, len(prompts), request["batch_size"]):
        batch = prompts[start : start + request["batch_size"]]
        for answer in generate(
            model,
            batch,
            pad_id=request["pad_id"],
            eos_ids=request["eos_ids"],
            max_new_tokens=request["max_new_tokens"],
            batch_size=len(batch),
            temperature=request["temperature"],
            top_p=request["top_p"],
        ):
            answers.write(json.dumps(answer) + "\n")
        answers.flush()


def main() -> int:
    die_with_parent()
    # Libraries print to standard output: only answers may go there
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        try:
            work(json.load(sys.stdin), answers)
        except Exception as error:  # whatever a framework raises ends in one message, said by the parent
            if os.environ.get(TRACEBACK_VARIABLE):
                traceback.print_exc()
            answers.write(json.dumps({"error": f"{type(error).__name__}: {error}"}) + "\n")
            return EXIT_FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
