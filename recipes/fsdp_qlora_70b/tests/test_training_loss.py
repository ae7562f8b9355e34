"""The loss that training reports is the next-token loss of each document by itself."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torch.nn.functional as functional
import yaml
from conftest import RECIPE, run_sh
from datasets import load_from_disk
from setup import quantization
from transformers import AutoModelForCausalLM

import patches

CONVERSATIONS = 8
SENTENCE = "The answer number {} is that a river is a long line of water that runs from a hill down to the sea. "


def test_first_loss_equals_documents_scored_one_by_one(tmp_path: Path) -> None:
    """Catches labels shifted twice or not at all, documents that attend to each other, and padding that counts.

    The data fill exactly the four rows of one step, two documents a row, so step 1 is on all, before any update.
    """
    data = tmp_path / "data.jsonl"
    turns = [("What is a river?", SENTENCE.format(number)) for number in range(CONVERSATIONS)]
    rows = [{"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]} for q, a in turns]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ["--output", tmp_path / "run", "--data", data, "--set", f"data.eval={RECIPE}/samples/eval.jsonl"]
    options += ["--set", "data.eval_fraction=null", "--set", "train.max_steps=1", "--set", "lora.dropout=0"]
    for stage in ("weights", "data", "train"):
        done = run_sh(*options, "--only", stage)
        assert done.returncode == 0, done.stdout + done.stderr

    run = tmp_path / "run"
    prepared = load_from_disk(str(run / "data" / "train"))
    assert len(prepared) == 4
    config = yaml.safe_load((run / "train" / "config.yaml").read_text())
    patches.apply("bitsandbytes.keep_4bit_layout")
    model = AutoModelForCausalLM.from_pretrained(
        run / "weights", quantization_config=quantization(config), dtype=torch.bfloat16
    )
    total = tokens = 0
    for row in prepared:
        starts = [index for index, position in enumerate(row["position_ids"]) if position == 0]
        assert len(starts) == 2
        for begin, end in zip(starts, [*starts[1:], len(row["input_ids"])], strict=True):
            ids, labels = torch.tensor([row["input_ids"][begin:end]]), torch.tensor(row["labels"][begin:end])
            with torch.no_grad():
                logits = model(ids).logits[0].float()
            total += float(functional.cross_entropy(logits[:-1], labels[1:], reduction="sum"))
            tokens += int((labels[1:] != -100).sum())
    reported = json.loads((run / "metrics.jsonl").read_text())["loss"]
    assert abs(reported - total / tokens) < 2e-3, (reported, total / tokens)
