"""What a person finds after `bash run.sh` with nothing given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from conftest import run_sh

from common.evaluation import contest, judge
from common.frameworks.mindformers import checkpoints
from common.tokenizer import load
from common.weights import mindspore_ckpt, safetensors_header
from common.weights.logits import logits
from common.weights.source import open_source

TARGETS = {"q_proj", "v_proj"}
LAYERS = 4


def values(raw: Any) -> np.ndarray:
    return np.asarray(raw.open().read(0, raw.shape[0]))


def tensors(file: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return dict(load_file(file))


def test_it_learns_to_calculate_and_still_reads(evaluation: dict[str, dict[str, Any]]) -> None:
    accuracy = evaluation["accuracy"]
    assert accuracy["before"] < 20
    assert accuracy["after"] > accuracy["before"] + 25
    for metric in ("F1", "EM"):
        row = evaluation[metric]
        assert row["before"] > 50
        assert row["limit"] == 0.9 * row["before"]
        assert row["after"] >= row["limit"]


def test_every_type_is_scored(run: Path) -> None:
    rows = json.loads((run / "evaluation.json").read_text("utf-8"))
    types = [row for row in rows if row["part"]]
    whole = next(row for row in rows if row["metric"] == "accuracy" and row["part"] is None)
    assert len(types) == 11
    assert sum(row["count"] for row in types) == whole["count"]
    right = sum(row["count"] * row["after"] for row in types)
    assert abs(right / whole["count"] - whole["after"]) < 1e-9


def test_accuracy_is_the_judges(run: Path, evaluation: dict[str, dict[str, Any]]) -> None:
    """Counted again from the answers, against the solutions of the split."""
    tokens = load(run / "weights")
    solutions = {
        row["problem"]: row["solution"]
        for row in map(json.loads, (run / "problems" / "eval.jsonl").read_text("utf-8").splitlines())
    }
    asked = [json.loads(line)["prompt"] for line in (run / "data/eval/prompts.jsonl").read_text("utf-8").splitlines()]
    for side in ("before", "after"):
        lines = (run / "evaluate" / f"problems-{side}.jsonl").read_text("utf-8").splitlines()
        right = 0
        for prompt, line in zip(asked, lines, strict=True):
            (problem,) = [each for each in solutions if f"\n{each}\n" in prompt]
            said = tokens.decode(json.loads(line), skip_special=True)
            right += judge.judge(problem, solutions[problem], said).correct
        assert 100 * right / len(asked) == evaluation["accuracy"][side]


def test_the_ratio_is_counted(run: Path, evaluation: dict[str, dict[str, Any]]) -> None:
    def parameters(file: Path) -> int:
        return sum(int(np.prod(entry.shape)) for entry in safetensors_header.read(file).entries.values())

    trained = parameters(run / "adapter" / "adapter_model.safetensors")
    total = sum(parameters(file) for file in (run / "model").glob("*.safetensors"))
    assert evaluation["trained parameters, %"]["after"] == 100 * trained / total
    accuracy = evaluation["accuracy"]["after"]
    assert evaluation["score, phase 1"]["after"] == contest.score(accuracy, trained / total, 1)
    assert evaluation["score, phase 2"]["after"] == contest.score(accuracy, trained / total, 2)


def test_base_weights_are_what_they_were_and_all_of_lora_is_trained(run: Path) -> None:
    base = mindspore_ckpt.read(run / "weights" / "llama3.ckpt")
    held = mindspore_ckpt.read(checkpoints.need_last(run / "mindformers" / "checkpoint").files[0])
    for name, before in base.items():
        assert values(before).tobytes() == values(held[name]).tobytes(), name
    lora = {name: values(raw) for name, raw in held.items() if name.startswith("model.") and "lora" in name}
    assert len(lora) == 2 * len(TARGETS) * LAYERS
    for name, value in lora.items():
        # B begins at zero; every row of what comes out of A and B has moved
        assert (np.abs(value).max(axis=-1) > 0).all(), name


def test_adapter_is_as_stated(run: Path) -> None:
    held = tensors(run / "adapter" / "adapter_model.safetensors")
    expected = {
        f"base_model.model.model.layers.{layer}.self_attn.{target}.lora_{part}.weight"
        for layer in range(LAYERS)
        for target in TARGETS
        for part in "AB"
    }
    assert set(held) == expected
    config = json.loads((run / "adapter" / "adapter_config.json").read_text("utf-8"))
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (8, 16, 0.0)
    assert set(config["target_modules"]) == TARGETS


def test_merged_model_is_base_plus_adapter(run: Path) -> None:
    base = open_source(run / "weights", None).tensors
    merged = open_source(run / "model", None).tensors
    adapter = tensors(run / "adapter" / "adapter_model.safetensors")
    name = "model.layers.2.self_attn.v_proj"
    a, b = (adapter[f"base_model.model.{name}.lora_{part}.weight"].astype(np.float64) for part in "AB")
    both = [np.asarray(of[f"{name}.weight"].read(0, b.shape[0])) for of in (base, merged)]
    before, after = (each.astype(np.float64) if each.dtype.kind == "f" else widened(each) for each in both)
    assert np.abs(before + 2 * (b @ a) - after).max() < np.abs(after).max() * 2**-8  # bf16 has 8 bits
    assert np.abs(before - after).max() > 0.01


def widened(bits: np.ndarray) -> np.ndarray:
    """bf16, held as its bits, in fp64."""
    return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def test_an_independent_forward_pass_gives_the_same_answers(run: Path) -> None:
    """The exported model, in numpy, from its Hugging Face files: greedy, as MindFormers answered."""
    source = open_source(run / "model", None)
    prompts = [json.loads(line) for line in (run / "data/eval/prompts.jsonl").read_text("utf-8").splitlines()]
    answers = [json.loads(line) for line in (run / "evaluate/problems-after.jsonl").read_text("utf-8").splitlines()]
    for prompt, answer in list(zip(prompts, answers, strict=True))[:6]:
        ids = [*prompt["prompt_ids"], *answer]
        scores = logits(source, ids)[len(prompt["prompt_ids"]) - 1 : -1]
        assert scores.argmax(axis=-1).tolist() == answer


def test_prompts_begin_once(run: Path) -> None:
    tokens = load(run / "weights")
    begin = tokens.special_id("<|begin_of_text|>")
    for file in ("data/eval/prompts.jsonl", "data/reading.jsonl"):
        for line in (run / file).read_text("utf-8").splitlines():
            row = json.loads(line)
            assert [place for place, token in enumerate(row["prompt_ids"]) if token == begin] == [0]
            assert tokens.decode(row["prompt_ids"], skip_special=True) == row["prompt"].removeprefix(
                "<|begin_of_text|>"
            )


def test_the_report_has_the_leaderboard_and_the_verdict(run: Path) -> None:
    report = json.loads((run / "report.json").read_text("utf-8"))
    who = [row["who"] for row in report["leaderboard"]["rows"]]
    assert {"this run", "the contest's winner", "the contest's base model"} <= set(who)
    assert report["verdict"] is None
    assert report["limits"] == 2


def test_the_same_command_again_does_nothing(run: Path) -> None:
    again = run_sh("--output", run)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("done before") == 6
