"""What a person finds after `bash run.sh` with nothing given."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import RECIPE, ROOT, nll, nothing_left_in, run_sh
from mindspore import dataset
from safetensors.numpy import load_file
from transformers import AutoTokenizer

from common import environment
from common import tokenizer as tokenizers
from common.frameworks.mindformers import checkpoints, worker
from common.weights import verify
from common.weights.logits import logits
from common.weights.source import open_source

STEPS, ROWS, LENGTH = 24, 8, 256


def test_the_loss_falls_by_more_than_half(metrics: list[dict[str, Any]], evaluation: dict[str, dict[str, Any]]) -> None:
    losses = [row["loss"] for row in metrics]
    assert sum(losses[-4:]) / 4 < losses[0] / 2
    assert evaluation["loss"]["after"] < evaluation["loss"]["before"] / 1.5


def test_every_step_has_one_row(metrics: list[dict[str, Any]]) -> None:
    assert [row["step"] for row in metrics] == list(range(1, STEPS + 1))
    for row in metrics:
        assert ROWS * 100 < row["tokens"] <= row["padded_tokens"] == ROWS * LENGTH
        assert row["grad_norm"] > 0 and row["seconds"] > 0 and row["memory_bytes"] > 2**27


def test_the_learning_rate_as_used_is_a_cosine(metrics: list[dict[str, Any]]) -> None:
    """warmup_ratio 0.03 of 24 steps is none; half a cosine over all steps."""
    expected = [5e-3 * 0.5 * (1 + np.cos(np.pi * step / STEPS)) for step in range(STEPS)]
    assert [row["learning_rate"] for row in metrics] == pytest.approx(expected, rel=1e-5)


def test_records(run: Path) -> None:
    """MindRecord as the model wants it: seq_length + 1 ids, padded, one bos, the end of every answer trained."""
    meta = json.loads((run / "data" / "meta.json").read_text())
    tokens = tokenizers.load(run / "weights")
    bos, end, pad = (
        tokens.special[f"<|{name}|>"] for name in ("begin_of_text", "end_of_text", "finetune_right_pad_id")
    )
    assert (meta["end_of_answer_id"], meta["pad_id"]) == (end, pad)
    records = dataset.MindDataset(str(run / "data" / "train.mindrecord"), shuffle=False)
    found = list(records.create_dict_iterator(output_numpy=True, num_epochs=1))
    assert len(found) == meta["train"]["rows"] == len(json.loads((RECIPE / "samples" / "train.json").read_text()))
    for record in found:
        ids, labels = record["input_ids"], record["labels"]
        assert ids.shape == labels.shape == (LENGTH + 1,) and ids.dtype == labels.dtype == np.int32
        length = int((ids != pad).sum())
        assert (ids[length:] == pad).all() and (labels[length:] == -100).all()
        assert ids[0] == bos and (ids == bos).sum() == 1
        trained = np.flatnonzero(labels != -100)
        assert (labels[trained] == ids[trained]).all()
        assert (trained == np.arange(trained[0], length)).all() and ids[length - 1] == end


def test_evaluation_is_of_the_exported_model(run: Path, evaluation: dict[str, dict[str, Any]]) -> None:
    """MindFormers' held-out loss of base and model, against a forward pass in numpy of the published folders."""
    from common.data import mindrecord

    pad = json.loads((run / "data" / "meta.json").read_text())["pad_id"]
    for folder, when in (("weights", "before"), ("model", "after")):
        source = open_source(run / folder)
        sums = [
            nll(source, ids, labels)
            for batch in mindrecord.padded(run / "data" / "eval", LENGTH + 1, pad)
            for ids, labels in zip(*batch, strict=True)
        ]
        total, count = sum(each for each, _ in sums), sum(each for _, each in sums)
        assert count == evaluation["loss"]["count"]
        assert evaluation["loss"][when] == pytest.approx(total / count, abs=1e-5)


def test_the_model_is_the_last_checkpoint_bit_by_bit(run: Path) -> None:
    last = checkpoints.need_last(run / "mindformers" / "checkpoint")
    assert last.step == STEPS and len(last.files) == 2
    checkpoint = open_source(last.files[0], run / "weights" / "config.json")
    result = verify.verify(checkpoint, open_source(run / "model"), lambda _: None)
    assert not result.problems and not result.casts
    base = open_source(run / "weights")
    assert verify.verify(base, open_source(run / "model"), lambda _: None).problems, "training changed nothing"


def test_both_processes_end_in_the_same_weights(run: Path) -> None:
    files = checkpoints.need_last(run / "mindformers" / "checkpoint").files
    one, other = (open_source(file, run / "weights" / "config.json") for file in files)
    assert not verify.verify(one, other, lambda _: None).problems


def test_model_folder_is_complete(run: Path) -> None:
    model = run / "model"
    shards = sorted(model.glob("model-*-of-*.safetensors"))
    assert len(shards) > 1 and (model / "model.safetensors.index.json").exists()
    names = set().union(*(load_file(shard) for shard in shards))
    assert "model.embed_tokens.weight" in names and "lm_head.weight" in names
    tokens = AutoTokenizer.from_pretrained(model)
    generation = json.loads((model / "generation_config.json").read_text())
    assert generation["eos_token_id"] == tokens.eos_token_id != tokens.pad_token_id
    assert "Prompt template: `vicuna`" in (model / "README.md").read_text()


def test_answers_are_greedy_and_end(run: Path, evaluation: dict[str, dict[str, Any]]) -> None:
    """The answers in evaluation.json are what the most likely tokens of the exported model spell."""
    source, tokens = open_source(run / "model"), tokenizers.load(run / "model")
    ended = evaluation["ended by themselves"]
    asked = [json.loads(line) for line in (run / "data" / "eval" / "prompts.jsonl").read_text().splitlines()]
    assert ended["count"] == len(ended["samples"]) == len(asked) == 2
    end = json.loads((run / "data" / "meta.json").read_text())["end_of_answer_id"]
    for prompt, sample in zip(asked, ended["samples"], strict=True):
        ids = list(prompt["prompt_ids"])
        for _ in range(12):
            ids.append(int(np.argmax(logits(source, ids)[-1])))
            if ids[-1] == end:
                break
        assert sample["after"] == tokens.decode(ids[len(prompt["prompt_ids"]) :], skip_special=True)
        assert sample["before"] != sample["after"]
    assert 0 <= ended["before"] <= 1 and 0 <= ended["after"] <= 1


def test_predict_answers_as_evaluation_did(run: Path, evaluation: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    """Several prompts from a file and one text, through MindFormers; nothing is left in the folder of the call."""
    python = environment.light_spec().python()
    command = [str(python), "-m", "common.evaluation", "generate", "--model", str(run / "model"), "--json"]
    command += ["--prompts", str(run / "data" / "eval" / "prompts.jsonl"), "--predict-data", "What is a river?"]
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [*command, "--max-new-tokens", "12"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=variables, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    asked = [each for each in answers if each["prompt"] != "What is a river?"]
    assert [each["answer"] for each in asked] == [
        each["after"] for each in evaluation["ended by themselves"]["samples"]
    ]
    assert len(answers) == len(asked) + 1 and all(each["tokens"] > 0 for each in answers)
    nothing_left_in(tmp_path)


def test_the_cache_of_keys_and_values_holds_whole_rows() -> None:
    """Paged attention, on Ascend, takes blocks of 16 tokens: the upstream's 512 are 8192 tokens of all rows."""
    stated = yaml.safe_load((RECIPE / "configs" / "predict.yaml").read_text())["model"]["model_config"]
    assert worker.sizes(stated, 500, 8) == {"seq_length": 512, "batch_size": 8, "num_blocks": 512}
    assert worker.sizes(stated, 8192, 8)["num_blocks"] == 8 * 8192 // 16


def test_report_tensorboard_and_mindformers_own_loss_lines(run: Path) -> None:
    assert json.loads((run / "report.json").read_text())["version"] == 1
    assert (run / "report.md").exists() and "held-out" in (run / "report.html").read_text(encoding="utf-8").lower()
    events = list((run / "tensorboard").glob("events.out.tfevents.*"))
    assert events and all(name in events[0].read_bytes() for name in (b"train/loss", b"train/learning_rate"))
    log = (run / "logs" / "train.log").read_text()
    assert log.count("loss:[") == log.count("global_norm: [") == STEPS


def test_the_same_command_again_does_nothing(run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (run / "model").iterdir()}
    again = run_sh("--output", run)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("done before") == 6
    assert {path: path.stat().st_mtime_ns for path in (run / "model").iterdir()} == before
