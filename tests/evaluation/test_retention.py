"""What a model keeps: thresholds, intervals, regressions, and results for evaluation.json."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.evaluation import comparison, result, retention
from common.evaluation.rows import Answered
from common.evaluation.squad import Scores


def scores(*values: float) -> list[Scores]:
    return [Scores(value, value) for value in values]


def test_the_threshold_is_a_share_of_the_base() -> None:
    (f1, em) = retention.compare(scores(100, 100, 0), scores(100, 80, 0), 0.9)
    assert (f1.metric, f1.before, f1.after, f1.least) == ("F1", pytest.approx(200 / 3), 60, pytest.approx(60))
    assert f1.passed is (f1.least <= 60)
    assert not retention.compare(scores(100), scores(89.9), 0.9)[0].passed
    assert retention.compare(scores(100), scores(90), 0.9)[0].passed
    with pytest.raises(ValueError, match="2 answers before and 1 after"):
        retention.compare(scores(1, 2), scores(1), 0.9)
    with pytest.raises(ValueError, match="0 answers"):
        retention.compare([], [], 0.9)
    assert em.count == 3


def test_the_interval_is_that_of_the_mean() -> None:
    differences = np.random.default_rng(5).normal(2.0, 10.0, 2000)
    low, high = retention.paired_bootstrap(differences)
    mean, error = differences.mean(), differences.std() / math.sqrt(2000)
    assert low == pytest.approx(mean - 1.96 * error, abs=0.05) and high == pytest.approx(mean + 1.96 * error, abs=0.05)
    assert (low, high) == retention.paired_bootstrap(differences) != retention.paired_bootstrap(differences, seed=1)


def test_pairs_stay_together() -> None:
    """Answers that all lost the same have no uncertainty, however unlike they are among themselves."""
    before = scores(*range(0, 100, 5))
    after = scores(*(value - 1 for value in range(0, 100, 5)))
    assert retention.compare(before, after, 0.9)[0].interval == (pytest.approx(-1), pytest.approx(-1))


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), min_size=1, max_size=40))
def test_the_worst_come_first_and_only_regressions(pairs: list[tuple[int, int]]) -> None:
    found = retention.worst(scores(*(b for b, _ in pairs)), scores(*(a for _, a in pairs)), most=5)
    changes = [each.after.f1 - each.before.f1 for each in found]
    assert changes == sorted(changes) and all(change < 0 for change in changes)
    assert len(found) == min(5, sum(after < before for before, after in pairs))
    assert all((found[i].before.f1, found[i].after.f1) == pairs[found[i].index] for i in range(len(found)))


def answered(*texts: str) -> list[Answered]:
    return [Answered(text, ["red", "dark red"]) for text in texts]


def test_reading_results(tmp_path: Path) -> None:
    made = comparison.reading(
        ["p", "q"], answered("red", "dark red"), answered("red", "blue"), metric="official", keep=0.9, task="SQuAD"
    )
    result.write(tmp_path, made)
    f1, em = result.read(tmp_path / result.FILE)
    assert (f1.name, f1.before, f1.after, f1.limit, f1.count) == ("SQuAD F1", 100, 50, 90, 2)
    assert (f1.passed, em.passed, result.failed([f1])) == (False, False, "SQuAD F1 is 50.00, at least 90.00 is asked")
    lost = {"prompt": "q", "reference": "red / dark red", "before": "dark red", "after": "blue"}
    assert f1.regressions == [{**lost, "score_before": 100.0, "score_after": 0.0}] and em.regressions == []
    contest = comparison.reading(["p"], answered("dark red"), answered("red"), metric="emf1", keep=None)
    assert (contest[1].before, contest[1].after, contest[1].limit) == (0, 100, None), "one label, the first"
    assert result.failed(contest) is None


def test_math_results_by_type() -> None:
    problems = [
        {"problem": "计算 1 + 1 等于多少？", "solution": "1 + 1 = 2"},
        {"problem": "计算 4.00 的平方根？", "solution": "√4.00 = 2"},
        {"problem": "计算 9.00 的平方根？", "solution": "√9.00 = 3"},
    ]
    made = comparison.math(problems, ["2", "", ""], ["2", "2", "5"], tolerance=1e-2)
    assert [(each.part, each.count, each.before, each.after) for each in made] == [
        (None, 3, pytest.approx(100 / 3), pytest.approx(200 / 3)),
        ("arithmetic", 1, 100, 100),
        ("square root", 2, 0, 50),
    ]
    assert made[0].samples[1] == {
        "prompt": problems[1]["problem"],
        "reference": "√4.00 = 2",
        "before": "",
        "after": "2",
    }


def test_a_limit_from_above_and_a_figure_that_is_no_number() -> None:
    loss = result.Result("held-out data", "loss", "eval", 9, 2.0, 2.5, False, limit=2.2)
    assert result.failed([loss]) == "held-out data loss is 2.50, at most 2.20 is asked"
    assert not result.Result("reading", "F1", "eval", 9, 50.0, math.nan, True, limit=45.0).passed
