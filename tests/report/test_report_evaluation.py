"""What a report says of the evaluation: the verdict, types, regressions, the leaderboard."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from common import recipe
from common.evaluation import comparison, result
from common.evaluation.rows import Answered
from common.report.reading import Run, read
from common.report.render import as_html, as_json, as_markdown
from common.report.summary import summarize

PROBLEMS = [
    {"problem": "计算 1 + 1 等于多少？", "solution": "1 + 1 = 2"},
    {"problem": "计算 9.00 的平方根？", "solution": "√9.00 = 3"},
]


def evaluated(run: Path, said: str) -> Run:
    """`run` with an evaluation whose reading is kept where `said` is red."""
    before = [Answered("red", ["red"])] * 4
    after = [Answered("red", ["red"])] * 3 + [Answered(said, ["red"])]
    results = comparison.reading(["Which <colour>?"] * 4, before, after, metric="emf1", keep=0.9, task="SQuAD")
    results += comparison.math(PROBLEMS, ["2", ""], ["2", "3"], tolerance=1e-2)
    result.write(run, results)
    return read(run)


def stated(directory: Run, *rows: tuple[str, str, float]) -> Run:
    assert directory.recipe is not None
    results = [
        recipe.Result(what=what, metric=metric, value=value, unit="", hardware="4 × NPU", source=f"{what}'s log")
        for what, metric, value in rows
    ]
    return dataclasses.replace(directory, recipe=directory.recipe.model_copy(update={"results": results}))


def test_a_model_that_lost_too_much(run: Path) -> None:
    report = summarize(evaluated(run, "blue"))
    sentence = "SQuAD F1 is 75.00, at least 90.00 is asked; SQuAD EM is 75.00, at least 90.00 is asked"
    assert (report.verdict, report.limits) == (sentence, 2)
    page, text = as_html(report, []), as_markdown(report)
    for each in (page, text):
        assert f"The model lost too much: {sentence}." in each
        assert "Worst regressions" in each and "blue" in each and "at least 90" in each and "By type" in each
    assert "Which &lt;colour&gt;?" in page and "<colour>" not in page
    content = json.loads(as_json(report))
    assert content["verdict"] == sentence and content["evaluation"][0]["regressions"][0]["after"] == "blue"
    parts = {each["part"]: (each["before"], each["after"]) for each in content["evaluation"] if each["part"]}
    assert parts == {"arithmetic": (100, 100), "square root": (0, 100)}


def test_a_model_that_kept_it(run: Path) -> None:
    report = summarize(evaluated(run, "red"))
    assert (report.verdict, report.limits) == (None, 2)
    text = as_markdown(report)
    assert "The model keeps what it was asked to keep." in text and "Worst regressions" not in text
    assert text.index("## Evaluation") < text.index("| math | accuracy |") < text.index("### By type")


def test_nothing_is_said_where_nothing_is_asked(run: Path) -> None:
    text = as_markdown(summarize(read(run)))
    for word in ("The model keeps", "lost too much", "By type", "Leaderboard", "Worst regressions", "95 %", "Limit"):
        assert word not in text


def test_the_leaderboard_orders_by_its_first_metric(run: Path) -> None:
    directory = stated(
        evaluated(run, "red"),
        ("baseline", "math accuracy", 20.0),
        ("winner", "math accuracy", 100.0),
        ("winner", "SQuAD F1", 55.5),
        ("winner", "joules", 1.0),
        ("reader", "SQuAD F1", 99.0),
    )
    report = summarize(directory)
    board = report.leaderboard
    assert board is not None and board.metrics == ["math accuracy", "SQuAD F1"]
    assert [(place.who, *place.values.values()) for place in board.rows] == [
        ("this run", 100, 100),
        ("winner", 100, 55.5),
        ("baseline", 20, None),
        ("reader", None, 99),
    ]
    assert board.rows[1].source == "winner's log"
    for each in (as_html(report, []), as_markdown(report)):
        assert each.index("this run (smoke)") < each.index("winner") < each.index("baseline")


@pytest.mark.parametrize("metric", ["memory", "joules", "perplexity of nothing"])
def test_no_leaderboard_without_a_metric_of_the_evaluation(run: Path, metric: str) -> None:
    assert summarize(stated(evaluated(run, "red"), ("theirs", metric, 1.0))).leaderboard is None
