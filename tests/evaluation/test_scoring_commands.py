"""`python -m common.evaluation squad | math | contest | retention`: what they read, print and refuse."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from asked_run import write_adapter

from common import environment
from common.weights import tiny

Score = Callable[..., "subprocess.CompletedProcess[str]"]

SQUAD = {
    "data": [
        {
            "title": "a tower",
            "paragraphs": [
                {
                    "context": "Ada built the tower in 1850. It is 40 metres high.",
                    "qas": [
                        {"id": "1", "question": "Who built it?", "answers": [{"text": "Ada"}, {"text": "Ada Byron"}]},
                        {"id": "2", "question": "When?", "answers": [{"text": "1850"}, {"text": "in 1850"}]},
                    ],
                },
                {
                    "context": "Ben sold it.",
                    "qas": [{"id": "3", "question": "Who sold it?", "answers": [{"text": "Ben"}]}],
                },
            ],
        }
    ]
}


@pytest.fixture
def score() -> Score:
    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "common.evaluation", *map(str, arguments)]
        variables = {**os.environ, "PYTHONPATH": str(environment.ROOT)}
        return subprocess.run(command, capture_output=True, text=True, env=variables, cwd=environment.ROOT)

    return run


def lines(file: Path, *rows: object) -> Path:
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return file


def result(done: subprocess.CompletedProcess[str], status: int = 0) -> dict:
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def references(tmp_path: Path) -> Path:
    return lines(tmp_path / "dev.json", SQUAD)


def test_squad_with_labels_of_its_own(score: Score, tmp_path: Path) -> None:
    rows = [{"prediction": "the tower", "label": "Tower"}, {"prediction": "", "label": "b"}]
    file = lines(tmp_path / "said.jsonl", *rows)
    assert result(score("squad", "--predictions", file, "--json")) == {"f1": 50.0, "em": 50.0, "count": 2}
    found = result(score("squad", "--metric", "emf1", "--predictions", file, "--json"))
    assert (found["f1"], found["em"]) == (pytest.approx(25), 0)
    assert "F1 50.00, EM 50.00, 2 questions" in score("squad", "--predictions", file).stdout


def test_squad_by_id_takes_all_references_and_counts_what_is_missing(
    score: Score, tmp_path: Path, references: Path
) -> None:
    rows = lines(tmp_path / "said.jsonl", {"id": "2", "prediction": "in 1850"}, {"id": "1", "prediction": "Ada Byron"})
    whole = lines(tmp_path / "said.json", {"1": "Ada Byron", "2": "in 1850"})
    for file in (rows, whole):
        done = score("squad", "--predictions", file, "--references", references, "--json")
        assert result(done) == {"f1": pytest.approx(200 / 3), "em": pytest.approx(200 / 3), "count": 3}
        assert "1 of 3 questions have no answer" in done.stderr
    done = score("squad", "--metric", "emf1", "--predictions", rows, "--references", references, "--json")
    assert result(done)["em"] == 0, "the contest's metric has one label, the first"


@pytest.mark.parametrize("said", [["Ada", "1850", "Ben"], ["Ada", "Ben"]])
def test_squad_in_order_of_all_or_of_first_questions(
    score: Score, tmp_path: Path, references: Path, said: list[str]
) -> None:
    file = lines(tmp_path / "said.jsonl", *({"prediction": each} for each in said))
    found = result(score("squad", "--predictions", file, "--references", references, "--json"))
    assert found == {"f1": 100.0, "em": 100.0, "count": len(said)}


def test_references_as_lines(score: Score, tmp_path: Path) -> None:
    rows = [{"answers": {"text": ["a", "b"], "answer_start": [0, 1]}}, {"references": ["c"]}, {"label": "d"}]
    references = lines(tmp_path / "references.jsonl", *rows)
    file = lines(tmp_path / "said.jsonl", *({"prediction": each} for each in "bcd"))
    assert result(score("squad", "--predictions", file, "--references", references, "--json"))["em"] == 100


def test_math_by_type(score: Score, tmp_path: Path) -> None:
    area = {"problem": "一个长方形的长为 3 厘米，宽为 4 厘米，请计算其面积。", "solution": "面积为 12 平方厘米"}
    root = {"problem": "计算 2.00 的平方根？", "solution": "√2.00 = 1.414213562373095048801688724"}
    file = lines(
        tmp_path / "said.jsonl",
        {**area, "prediction": "12 平方厘米"},
        {**area, "prediction": "1"},
        {**root, "prediction": "1.41"},
    )
    found = result(score("math", "--predictions", file, "--json"))
    assert (found["accuracy"], found["correct"], found["count"], found["tolerance"]) == (200 / 3, 2, 3, 0.01)
    assert found["types"]["area"] == {"accuracy": 50.0, "correct": 1, "count": 2}
    assert list(found["types"]) == ["square root", "area"]
    found = result(score("math", "--predictions", file, "--tolerance", "1e-4", "--json"))
    assert (found["correct"], found["types"]["square root"]["correct"]) == (1, 0)
    assert "all" in score("math", "--predictions", file).stdout


PUBLISHED = ["--base-f1", 59.87023775108988, "--base-em", 44.17029511369134]
WINNER = ["--accuracy", 71.61, "--ratio", 0.00679028]


def test_the_contest_s_score(score: Score) -> None:
    found = result(score("contest", *PUBLISHED, "--f1", 60, "--em", 44, *WINNER, "--json"))
    assert found["score_phase_1"] == pytest.approx(0.799232916, abs=1e-12) and found["counts"] is True
    assert found["score_phase_2"] == pytest.approx((1 - 0.0679028) * 0.3 + 0.7161 * 0.7)
    assert found["least"] == {"f1": pytest.approx(53.88321397598089), "em": pytest.approx(39.75326560232221)}
    for f1, em in ((53.88, 44), (60, 39.75)):
        done = score("contest", *PUBLISHED, "--f1", f1, "--em", em, *WINNER, "--json")
        assert result(done, status=1)["counts"] is False


def test_the_ratio_is_counted_from_the_model(score: Score, tmp_path: Path) -> None:
    tiny.make(tmp_path / "model")
    write_adapter(tmp_path / "adapter", tmp_path / "model")
    call = ["contest", *PUBLISHED, "--f1", 60, "--em", 44, "--accuracy", 50, "--json"]
    found = result(score(*call, "--model", tmp_path / "model", "--adapter", tmp_path / "adapter"))
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    # A and B of rank 4 on every q_proj, over the weights' own bytes
    trained = config["num_hidden_layers"] * 2 * 4 * config["hidden_size"]
    size = json.loads((tmp_path / "model" / "model.safetensors.index.json").read_text())["metadata"]["total_size"]
    assert found["ratio"] == pytest.approx(trained / (size / 2))
    for extra in ([], ["--model", tmp_path / "model"], ["--ratio", 0.1, "--model", tmp_path, "--adapter", tmp_path]):
        assert score(*call, *extra).returncode == 2


def test_retention(score: Score, tmp_path: Path) -> None:
    label = {"label": "red brick"}
    before = lines(tmp_path / "before.jsonl", *[{"prediction": "red brick", **label}] * 9, {"prediction": "x", **label})
    same = score("retention", "--before", before, "--after", before, "--json")
    assert result(same)["passed"] is True and result(same)["worst"] == []
    after = lines(
        tmp_path / "after.jsonl",
        *[{"prediction": "red brick", **label}] * 8,
        *({"prediction": "red", **label}, {"prediction": "x", **label}),
    )
    done = score("retention", "--before", before, "--after", after, "--json")
    found = result(done, status=1)
    assert found["em"]["before"] == 90 and found["em"]["after"] == 80 and not found["em"]["passed"]
    assert found["f1"]["passed"] and found["worst"][0]["row"] == 9
    assert found == result(score("retention", "--before", before, "--after", after, "--json"), status=1), "seeded"
    said = score("retention", "--before", before, "--after", after)
    assert "EM 90.00 → 80.00 (at least 81.00" in said.stdout and "LOST" in said.stdout
    assert score("retention", "--before", before, "--after", after, "--keep", 0.8).returncode == 0
    few = lines(tmp_path / "few.jsonl", {"prediction": "red", **label})
    done = score("retention", "--before", before, "--after", few)
    assert done.returncode == 2 and "1 answers, and 10 before" in done.stderr


@pytest.mark.parametrize(
    ("command", "text", "problem", "line"),
    [
        ("squad", "", "holds no row", None),
        ("squad", '{"prediction": "a", "label": "a"}\n\n{', "is not JSON", 3),
        ("squad", '{"prediction": "a", "label": "a"}\n[1]', "is not a JSON object", 2),
        ("squad", '{"prediction": 7, "label": "a"}', "has no text 'prediction'", 1),
        ("squad", '{"predicton": "a", "label": "a"}', "fields predicton, label", 1),
        ("squad", '{"prediction": "a"}', "has no answer to compare with", 1),
        ("squad", '{"prediction": "a", "label": []}', "has no answer to compare with", 1),
        ("math", '{"problem": "a", "prediction": "b"}', "has no text 'solution'", 1),
    ],
)
def test_broken_files_are_named(
    score: Score, tmp_path: Path, command: str, text: str, problem: str, line: int | None
) -> None:
    file = tmp_path / "said.jsonl"
    file.write_text(text, encoding="utf-8")
    done = score(command, "--predictions", file)
    assert (done.returncode, done.stdout) == (2, "") and "Traceback" not in done.stderr
    assert problem in done.stderr and done.stderr.startswith(f"error: {file}:" + (f"{line}: " if line else " "))


def test_other_broken_input(score: Score, tmp_path: Path, references: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    cases = [
        (binary, None, "is not UTF-8"),
        (tmp_path / "none.jsonl", None, "no such file"),
        (lines(tmp_path / "strange.jsonl", {"id": "9", "prediction": "a"}), references, "not in the references"),
        (
            lines(tmp_path / "twice.jsonl", *[{"id": "1", "prediction": "a"}] * 2),
            references,
            "answers a question again",
        ),
        (lines(tmp_path / "four.jsonl", *[{"prediction": "a"}] * 4), references, "3 ("),
        (lines(tmp_path / "one.jsonl", {"prediction": "a"}), lines(tmp_path / "bad.json", {"data": [{}]}), "layout"),
    ]
    for file, given, problem in cases:
        done = score("squad", "--predictions", file, *(["--references", given] if given else []))
        assert done.returncode == 2 and problem in done.stderr and "Traceback" not in done.stderr, done.stderr
