"""The split: each problem once, every type on both sides, nothing on both."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import generate
import pytest
import split
from conftest import RECIPE, ROOT

from common.evaluation import problems


def write(file: Path, rows: list[Any]) -> Path:
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return file


@pytest.fixture
def source(tmp_path: Path) -> Path:
    made = [{"problem": each.problem, "solution": each.solution} for each in generate.generate("easy", 40, 7)]
    other = {"problem": "Find all primes p below 6 such that p + 2 is prime.", "solution": "3 and 5"}
    return write(tmp_path / "train.json", [*made, *made[:30], other])


def sides(folder: Path) -> dict[str, list[split.Row]]:
    return {name: list(split.read(folder / f"{name}.jsonl")) for name in ("train", "eval")}


def asked(row: split.Row) -> tuple[str, ...]:
    """What is asked of which numbers, whatever their order: found here a second time."""
    found = problems.find(row.problem)
    if found is None:
        return (row.problem,)
    sign = row.problem.split()[2] if found.kind == "arithmetic" else ""
    return (found.kind, sign, *sorted(found.numbers))


def test_no_problem_is_on_both_sides(source: Path, tmp_path: Path) -> None:
    summary = split.run(source, tmp_path / "out", 0.2, None, 0)
    parts = sides(tmp_path / "out")
    assert not set(map(asked, parts["train"])) & set(map(asked, parts["eval"]))
    assert summary["repeated"] == 30
    assert len(parts["train"]) + len(parts["eval"]) + 30 == summary["rows"]


def test_the_same_numbers_in_another_order_stay_together() -> None:
    area = "一个长方形的长为 {} 厘米，宽为 {} 厘米，请计算其面积。"
    assert split.typed(area.format(8, 7), "56").group == split.typed(area.format(7, 8), "56").group
    assert split.typed("计算 8 + 7 等于多少？", "15").group != split.typed("计算 8 * 7 等于多少？", "56").group


def test_every_type_is_scored_and_unknown_ones_are_only_trained(source: Path, tmp_path: Path) -> None:
    split.run(source, tmp_path / "out", 0.2, None, 0)
    parts = sides(tmp_path / "out")
    assert {row.kind for row in parts["eval"]} == set(problems.KINDS)
    assert {row.kind for row in parts["train"]} == {*problems.KINDS, problems.OTHER}


def test_no_type_outweighs_the_others_where_that_is_asked(source: Path, tmp_path: Path) -> None:
    summary = split.run(source, tmp_path / "out", 0.2, 10, 0)
    assert max(summary["types"][kind]["train"] for kind in problems.KINDS) == 10
    assert summary["left out by max_per_type"] > 0


def test_the_same_seed_gives_the_same_split(source: Path, tmp_path: Path) -> None:
    texts = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        split.run(source, tmp_path / name, 0.2, None, seed)
        texts.append((tmp_path / name / "eval.jsonl").read_text("utf-8"))
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"problem": "计算 1 + 1 等于多少？"', "is not JSON"),
        ('{"problem": "计算 1 + 1 等于多少？"}', "is no problem with its solution"),
        ('{"problem": "计算 1 + 1 等于多少？", "solution": 2}', "is no problem with its solution"),
        ('["计算 1 + 1 等于多少？", "2"]', "is no problem with its solution"),
    ],
)
def test_a_bad_line_is_named(line: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "train.json"
    file.write_text('{"problem": "计算 1 + 2 等于多少？", "solution": "3"}\n' + line + "\n", encoding="utf-8")
    command = [sys.executable, str(RECIPE / "split.py"), "--input", str(file), "--output", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)})
    assert done.returncode == 2
    assert f"{file}:2: {said}" in done.stderr
    assert not (tmp_path / "out").exists()
    assert "Traceback" not in done.stderr
