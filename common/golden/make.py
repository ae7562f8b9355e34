"""python -m common.golden.make: the batches and the two reference curves, by a plain loop of transformers.

Nothing of the recipes: transformers' model, torch's AdamW and clipping, PEFT's LoRA, one process, fp32.
Run with the Python of an environment that has torch, transformers and peft (fsdp_qlora_70b's); the
files it writes are committed. The model and the adapter come from the light environment.
"""

from __future__ import annotations

import platform
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from common import cli, environment, golden
from common.files import write_json

SETTINGS: dict[str, dict[str, Any]] = {
    "full": {"learning_rate": 1e-3},
    "lora": {"learning_rate": 2e-3, "rank": 8, "alpha": 16, "targets": "all-linear"},
}
ADAMW = {"betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.0, "max_grad_norm": 1.0}


def main() -> None:
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "golden"
        weights = _light("write_new", str(folder))
        settings = {kind: {**SETTINGS[kind], **ADAMW} for kind in golden.KINDS}
        curves = {}
        for kind in golden.KINDS:
            model = AutoModelForCausalLM.from_pretrained(
                folder / "model", dtype=torch.float32, attn_implementation="eager"
            )
            if kind == "lora":
                from peft import PeftModel

                model = PeftModel.from_pretrained(model, folder / "adapter", is_trainable=True)
            curves[kind] = train(model, settings[kind])
    names = ("torch", "transformers", "peft", "numpy")
    versions = {"weights": weights, "python": platform.python_version(), **{name: version(name) for name in names}}
    write_json(golden.REFERENCE, {"settings": settings, "versions": versions, "curves": curves})


def train(model: Any, settings: dict[str, Any]) -> list[float]:
    """The loss of each step before its update."""
    import torch
    from torch.nn.functional import cross_entropy

    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        trained,
        lr=settings["learning_rate"],
        betas=tuple(settings["betas"]),
        eps=settings["eps"],
        weight_decay=settings["weight_decay"],
    )
    losses = []
    for ids, labels in zip(np.load(golden.INPUT_IDS), np.load(golden.LABELS), strict=True):
        logits = model(torch.from_numpy(ids).long()).logits
        targets = torch.from_numpy(labels).long()[:, 1:]
        loss = cross_entropy(logits[:, :-1].flatten(0, 1), targets.flatten(), ignore_index=-100)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, settings["max_grad_norm"])
        optimizer.step()
        losses.append(loss.item())
    return losses


def _light(function: str, *arguments: str) -> str:
    code = f"import sys; from common.golden import folder; print(folder.{function}(*sys.argv[1:]))"
    python = str(environment.ensure(environment.light_spec()))
    ran = subprocess.run(
        [python, "-c", code, *arguments], stdout=subprocess.PIPE, text=True, cwd=environment.ROOT, check=True
    )
    return ran.stdout.strip()


if __name__ == "__main__":
    sys.exit(cli.call(main))
