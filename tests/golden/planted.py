"""PYTHON planted.py FOLDER: a plain training on the golden batches, right and with each defect planted.

Run with the Python of an environment with torch, transformers and peft; prints {name: [losses]} as JSON.
FOLDER is what `python -m common.golden` wrote.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from common import golden

STEPS = 6  # enough for each of them
END_OF_TEXT = 1025


def unpermuted(model: Any) -> None:
    """Q and K of Meta's layout taken for Hugging Face's: the halves of each head interleaved."""
    for layer in model.model.layers:
        for weight in (layer.self_attn.q_proj.weight, layer.self_attn.k_proj.weight):
            rows, columns = weight.shape
            heads = rows // layer.self_attn.head_dim
            weight.data = weight.view(heads, 2, -1, columns).transpose(1, 2).reshape(rows, columns).contiguous()


def run(folder: Path, defect: str) -> list[float]:
    read = golden.read()
    settings = read.settings["full"]
    model = AutoModelForCausalLM.from_pretrained(folder / "model", torch_dtype=torch.float32).train()
    if defect == "Q and K not permuted":
        unpermuted(model)
    parameters = list(model.parameters())
    rate, betas = settings["learning_rate"], tuple(settings["betas"])
    optimizer = torch.optim.AdamW(parameters, lr=rate, betas=betas, weight_decay=0)
    losses = []
    for ids, labels in zip(torch.from_numpy(read.input_ids).long(), torch.from_numpy(read.labels).long(), strict=True):
        shift = 2 if defect == "labels shifted twice" else 0 if defect == "labels not shifted" else 1
        if defect == "end of text masked away":
            labels = labels.masked_fill(labels == END_OF_TEXT, -100)
        if defect == "loss on the prompt":
            labels = ids
        mask = ids != END_OF_TEXT if defect == "end of text taken for padding" else None
        logits = model(ids, attention_mask=mask).logits
        scores = logits[:, : logits.shape[1] - shift].flatten(0, 1)
        loss = cross_entropy(scores, labels[:, shift:].flatten(), ignore_index=-100)
        optimizer.zero_grad()
        loss.backward()
        if defect != "gradients not clipped":
            torch.nn.utils.clip_grad_norm_(parameters, settings["max_grad_norm"])
        optimizer.step()
        losses.append(loss.item())
        if len(losses) == STEPS:
            break
    return losses


DEFECTS = (
    "Q and K not permuted",
    "labels shifted twice",
    "labels not shifted",
    "end of text masked away",
    "end of text taken for padding",
    "loss on the prompt",
    "gradients not clipped",
)

if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps({name: run(Path(sys.argv[1]), name) for name in ("none", *DEFECTS)}))
