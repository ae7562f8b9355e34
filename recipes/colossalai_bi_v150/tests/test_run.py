"""What a person finds after `bash run.sh` with nothing given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import RECIPE, run_sh
from data import IGNORE, Batches, open_rows
from transformers import AutoTokenizer, LlamaForCausalLM

STEPS = 12


def alone(model: Any, row: dict[str, Any]) -> tuple[float, int]:
    """The loss's sum over one row by itself, and its trained tokens."""
    ids, labels = (torch.as_tensor(row[key], dtype=torch.long) for key in ("input_ids", "labels"))
    with torch.no_grad():
        logits = model(input_ids=ids[None]).logits[0, :-1].float()
    total = torch.nn.functional.cross_entropy(logits, labels[1:], reduction="sum")
    return float(total), int((labels[1:] != IGNORE).sum())


def test_it_learns(metrics: list[dict[str, Any]], evaluation: dict[str, dict[str, Any]]) -> None:
    assert metrics[-1]["loss"] < metrics[0]["loss"] - 3
    assert evaluation["loss"]["after"] < evaluation["loss"]["before"] - 3


def test_every_step_has_one_row(metrics: list[dict[str, Any]]) -> None:
    assert [row["step"] for row in metrics] == list(range(1, STEPS + 1))
    for row in metrics:
        assert 0 < row["tokens"] <= row["padded_tokens"] <= 4 * 256  # four rows a step, none longer than 256
        assert row["grad_norm"] > 0 and row["seconds"] > 0 and row["memory_bytes"] > 2**20


def test_training_begins_at_the_pretrained_weights(
    run: Path, config: dict[str, Any], metrics: list[dict[str, Any]]
) -> None:
    """The vendor's launch passes no weights: its first loss is that of a random model."""
    model = LlamaForCausalLM.from_pretrained(run / "weights", torch_dtype=torch.float32)
    prepared = open_rows(run / "data" / "train", None)
    size, seed = config["train"]["micro_batch_size"], config["train"]["seed"]
    options: dict[str, Any] = {"pad_id": 0, "max_length": None, "multiple": 1, "together": False, "seed": seed}
    order = Batches(prepared, micro_batch_size=size, accumulation=2, data_rank=0, data_size=1, **options)
    found = [alone(model, prepared[order.row_of(index)]) for index in range(order.global_batch_size)]
    expected = sum(total for total, _ in found) / sum(tokens for _, tokens in found)
    assert metrics[0]["loss"] == pytest.approx(expected, abs=5e-3)  # NEFTune's noise is in the one and not in the other


def test_checkpoints_are_saved_at_their_interval(run: Path) -> None:
    folders = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert folders == ["step-10", "step-12"]  # of 5, 10 and 12 the last two
    position = json.loads((run / "checkpoints" / "step-10" / "running_states.json").read_text())
    assert position == {"epoch": 0, "step": 10, "sample_start_index": 40}


def test_transformers_loads_the_model_and_it_is_the_one_evaluated(
    run: Path, evaluation: dict[str, dict[str, Any]]
) -> None:
    model = LlamaForCausalLM.from_pretrained(run / "model", torch_dtype="auto")
    found = [alone(model, row) for row in open_rows(run / "data" / "eval", None)]
    tokens = sum(count for _, count in found)
    assert tokens == evaluation["loss"]["count"]
    assert sum(total for total, _ in found) / tokens == pytest.approx(evaluation["loss"]["after"], abs=1e-4)


def test_model_folder_is_complete(run: Path) -> None:
    model = run / "model"
    assert len(list(model.glob("model-*-of-*.safetensors"))) > 1
    tokenizer = AutoTokenizer.from_pretrained(model)
    assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)
    assert json.loads((model / "generation_config.json").read_text())["eos_token_id"] == tokenizer.eos_token_id
    assert "colossal" in (model / "README.md").read_text()


def test_prepared_tokens(run: Path) -> None:
    """Each text has its bos and eos; the loss is on each answer's bos, text and eos."""
    tokenizer = AutoTokenizer.from_pretrained(run / "weights")
    bos, eos, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    rounds = set()
    for row in open_rows(run / "data" / "train", None):
        ids, labels = row["input_ids"].tolist(), row["labels"].tolist()
        assert len(ids) <= 256 and pad not in ids and ids[0] == bos and ids[-1] == eos
        turns = ids.count(eos) // 2
        rounds.add(turns)
        assert ids.count(bos) == 1 + 2 * turns
        assert labels.count(bos) == labels.count(eos) == turns
        assert all(label in (IGNORE, token) for label, token in zip(labels, ids, strict=True))
    assert rounds == {1, 2}


def test_belles_own_layout_gives_the_same_tokens(run: Path, tmp_path: Path) -> None:
    firefly = [json.loads(line) for line in (RECIPE / "samples" / "train.jsonl").read_text().splitlines()]
    rounds = [row["conversation"][0] for row in firefly if len(row["conversation"]) == 1][:4]
    belle = [{"instruction": each["human"], "input": "", "output": each["assistant"]} for each in rounds]
    (tmp_path / "belle.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in belle))
    output = tmp_path / "run"
    more = ["--set", "data.source=belle", "--set", f"data.eval={tmp_path}/belle.jsonl"]
    for stage in ("weights", "data"):
        done = run_sh("--output", output, "--data", tmp_path / "belle.jsonl", *more, "--only", stage)
        assert done.returncode == 0, done.stdout + done.stderr
    found = [row["input_ids"].tolist() for row in open_rows(output / "data" / "train", None)]
    known = [row["input_ids"].tolist() for row in open_rows(run / "data" / "train", None)]
    assert len(found) == 4 and all(row in known for row in found)


def test_accuracy_is_of_final_answers(evaluation: dict[str, dict[str, Any]]) -> None:
    measured = evaluation["accuracy of final answers"]
    assert measured["count"] == len(measured["samples"]) == 4
    for sample in measured["samples"]:
        assert sample["prompt"].endswith("？") and sample["reference"].endswith("。")
    assert measured["after"] == sum(sample["right after"] for sample in measured["samples"]) / 4


def test_report_speed_and_tensorboard_events(run: Path) -> None:
    assert "Speed in the vendor's terms" in (run / "report.md").read_text()
    speed = json.loads((run / "speed.json").read_text())
    assert speed["steps"] == STEPS - 2
    assert list((run / "tensorboard").rglob("events.out.tfevents.*"))


def test_the_same_command_again_does_nothing(run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (run / "model").iterdir()}
    again = run_sh("--output", run)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("done before") == 6
    assert {path: path.stat().st_mtime_ns for path in (run / "model").iterdir()} == before
