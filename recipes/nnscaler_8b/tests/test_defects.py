"""What is wrong in the public original stays corrected (recipe.yaml, reproduces.corrected)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import RECIPE, needs_nnscaler, python, rows
from data import collator
from datasets import load_from_disk
from reference import batch_of_step, next_token_loss
from transformers import AutoModelForCausalLM, AutoTokenizer

MASKED = -100


def test_labels_of_a_batch_are_the_next_tokens(prepared: Path) -> None:
    data = load_from_disk(str(prepared / "data" / "train"))
    pad = AutoTokenizer.from_pretrained(prepared / "weights").pad_token_id
    batch = collator(128, pad, isolate=True)([data[0], data[len(data) - 1]])
    ids, labels = batch["input_ids"], batch["labels"]
    assert ids.shape == labels.shape == (2, 128)
    trained = labels[:, :-1] != MASKED
    assert trained.sum() > 128 and (labels[:, -1] == MASKED).all()
    assert torch.equal(labels[:, :-1][trained], ids[:, 1:][trained])
    assert not torch.equal(labels[:, :-2][trained[:, :-1]], ids[:, 2:][trained[:, :-1]])


@needs_nnscaler
def test_labels_are_shifted_once(tensor_parallel: Path) -> None:
    """The loss that training reports is the next-token loss of each document by itself.

    Catches labels that are shifted twice or not at all, documents that see each other, and padding that counts.
    """
    model = AutoModelForCausalLM.from_pretrained(tensor_parallel / "weights", dtype=torch.float32)
    batch = batch_of_step(tensor_parallel, 1, rows_a_step=4)
    assert rows(tensor_parallel)[0]["loss"] == pytest.approx(next_token_loss(model, batch), abs=1e-6)


def test_ends_are_trained(prepared: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(prepared / "weights")
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    data = load_from_disk(str(prepared / "data" / "train"))
    batch = collator(128, tokenizer.pad_token_id, isolate=True)(list(data))
    ends = sum(row["input_ids"].count(tokenizer.eos_token_id) for row in data)
    first_of_a_row = sum(row["input_ids"][0] == tokenizer.eos_token_id for row in data)  # nothing stands before it
    assert ends > 100
    assert int((batch["labels"] == tokenizer.eos_token_id).sum()) == ends - first_of_a_row
    assert not (batch["labels"] == tokenizer.pad_token_id).any()


PRECISION = """
import sys
import torch
import patches
for name in ("nnscaler.cpu", "nnscaler.newer_torch"):
    patches.apply(name)
from model import SummedLoss
from nnscaler.cli.trainer_args import _to_precision
from setup import PRECISION
precision = PRECISION["bfloat16"] if sys.argv[1] == "ours" else dict.fromkeys(("param", "buffer", "input"), "bf16")
SummedLoss.folder = sys.argv[2]
model = SummedLoss(from_scratch=False, layers=None, loss_chunk=None, documents="isolated")
exact = model.model.model.rotary_emb.inv_freq.clone()
_to_precision(model, precision)
found = model.model.model.rotary_emb.inv_freq
print(found.dtype, (found.float() - exact).abs().max().item() * 8192, {each.dtype for each in model.parameters()})
"""


@needs_nnscaler
def test_rotary_frequencies_stay_fp32(prepared: Path) -> None:
    ours = python(PRECISION, "ours", prepared / "weights")
    assert ours.stdout.split() == ["torch.float32", "0.0", "{torch.bfloat16}"], ours.stderr
    theirs = python(PRECISION, "theirs", prepared / "weights").stdout.split()
    assert theirs[0] == "torch.bfloat16" and float(theirs[1]) > 1, "radians that the last position of 8,192 is off"


@needs_nnscaler
def test_the_traced_frequencies_are_those_of_transformers(run: Path) -> None:
    """nnScaler keeps what it traced in generated/; the buffer in it is fp32 and not rounded."""
    model = AutoModelForCausalLM.from_pretrained(run / "weights", dtype=torch.float32)
    kept = {}
    for file in (run / "generated").rglob("fullmodel.pt.*"):
        kept |= torch.load(file, map_location="cpu", weights_only=True)
    buffers = [tensor for tensor in kept.values() if tensor.dtype == torch.float32]
    assert len(buffers) == 1, "the parameters are bf16"
    assert torch.equal(buffers[0], model.model.rotary_emb.inv_freq)


def test_packing_keeps_every_token(prepared: Path) -> None:
    """All rows one after the other are all paragraphs, each between begin and end: nothing is lost or stands twice."""
    tokenizer = AutoTokenizer.from_pretrained(prepared / "weights")
    text = (RECIPE / "samples" / "train.txt").read_text(encoding="utf-8")
    expected: list[int] = []
    for paragraph in filter(None, text.strip().split("\n\n")):
        ids = tokenizer.encode(paragraph, add_special_tokens=False)
        expected += [tokenizer.bos_token_id, *ids, tokenizer.eos_token_id]
    data = load_from_disk(str(prepared / "data" / "train"))
    assert [token for row in data for token in row["input_ids"]] == expected
    assert [len(row["input_ids"]) for row in data][:-1] == [128] * (len(data) - 1)


@needs_nnscaler
def test_no_checkpoint_is_called_the_best(run: Path) -> None:
    names = {path.name for path in (run / "checkpoints").iterdir()}
    assert (
        {name.partition("-")[2] for name in names} == {"0012", "0024", ""} and "last" in names and "best" not in names
    )
    assert {row["split"] for row in json.loads((run / "evaluation.json").read_text())} == {"eval"}
