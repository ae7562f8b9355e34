"""Runs that are not finished are reported as far as they are; broken ones are named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from common.errors import UserError
from common.files import remove
from common.metrics import FIELDS
from common.report.reading import read
from common.report.render import as_html, as_markdown
from common.report.summary import summarize


def test_a_finished_run_misses_nothing(run: Path) -> None:
    remove(run / "report")  # the stage at work while the report is written
    found = summarize(read(run))
    assert found.finished and found.missing == []
    seconds = {stage.name: stage.seconds for stage in found.stages}
    assert found.training is not None and "report" not in seconds
    # Its steps took longer than the stage's last start: it was resumed
    others = sum(value for name, value in seconds.items() if name != "train" and value)
    assert found.seconds == pytest.approx(others + found.training.seconds)
    assert any("resumed" in note for note in found.notes)


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        (["metrics.jsonl"], "metrics.jsonl"),
        (["evaluation.json"], "evaluation.json"),
        (["adapter", "model"], "neither adapter/ nor model/"),
        (["train"], "stage train is not done"),
        (["data"], "stage data is not done"),
        (["weights", "model"], "stage weights is not done"),
        (
            ["weights", "data", "train", "export", "evaluate", "adapter", "model", "metrics.jsonl", "evaluation.json"],
            "train",
        ),
    ],
)
def test_what_is_missing_is_said_and_the_rest_reported(run: Path, gone: list[str], said: str) -> None:
    for name in gone:
        remove(run / name)
    directory = read(run)
    found = summarize(directory)
    assert not found.finished and any(said in each for each in found.missing)
    for text in (as_markdown(found), as_html(found, directory.rows)):
        assert said in text and found.preset in text


def test_a_run_from_elsewhere(run: Path, edit_plan: Callable) -> None:
    edit_plan(lambda content: content.update(recipe="their_recipe", platform="their_machine"))
    found = summarize(read(run))
    assert found.hardware.cards is None and found.summary is None and found.results == []
    assert any("their_recipe" in note for note in found.notes) and any("their_machine" in note for note in found.notes)
    as_html(found, [])


def test_no_run_directory(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such run directory"):
        read(tmp_path / "none")
    with pytest.raises(UserError, match=r"no plan\.yaml") as caught:
        read(run / "weights")
    assert "config.json" in str(caught.value.found)


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("recipe: [", 1, "is not YAML"),
        ("- a list", None, "no mapping"),
        ("recipe: a\npreset: b\n", None, "platform is missing"),
        ("recipe: a\npreset: [b]\n", 2, "preset"),
    ],
)
def test_a_broken_plan(run: Path, text: str, line: int | None, problem: str) -> None:
    (run / "plan.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=problem) as caught:
        read(run)
    assert (caught.value.file, caught.value.line) == (run / "plan.yaml", line)


ROW = dict.fromkeys(FIELDS, 1.0) | {"step": 2}


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        ('{"step": 2, "lo', "is not a JSON object"),
        ("[1]", "is not a JSON object"),
        ("", "is not a JSON object"),
        (json.dumps({**ROW, "loss": "low"}), "loss is not a number"),
        (json.dumps({key: value for key, value in ROW.items() if key != "tokens"}), "tokens is not a number"),
        (json.dumps({**ROW, "step": 1}), "steps do not ascend"),
    ],
)
def test_a_broken_line_in_the_middle_of_the_metrics(run: Path, broken: str, problem: str) -> None:
    lines = (run / "metrics.jsonl").read_text("utf-8").splitlines()
    lines[1] = broken
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=problem) as caught:
        read(run)
    assert (caught.value.file, caught.value.line) == (run / "metrics.jsonl", 2)


def test_a_last_line_that_a_kill_cut_is_left_out_and_said(run: Path) -> None:
    text = (run / "metrics.jsonl").read_text("utf-8")
    (run / "metrics.jsonl").write_text(text[:-20], encoding="utf-8")
    directory = read(run)
    assert len(directory.rows) == len(text.splitlines()) - 1
    assert any("cut off" in note for note in summarize(directory).notes)


@pytest.mark.parametrize("name", ["evaluation.json", "data/meta.json", "train/section.json", "golden.json"])
@pytest.mark.parametrize("text", ["{", "[1]", '[{"task": "a"}]'])
def test_other_broken_files_are_named(run: Path, name: str, text: str) -> None:
    (run / name).write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read(run)
    assert caught.value.file == run / name
