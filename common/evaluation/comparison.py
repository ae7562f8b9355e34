"""Answers before and after fine-tuning as results for evaluation.json: reading, and math problems by type."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from common.evaluation import emf1, judge, retention, squad
from common.evaluation.judge import Judgement
from common.evaluation.result import Result
from common.evaluation.rows import Answered
from common.evaluation.squad import Scores

SAMPLES = 4  # answers that are shown

METRICS: dict[str, Callable[[Answered], Scores]] = {
    "official": lambda each: squad.official(each.prediction, each.references),
    "emf1": lambda each: emf1.score(each.prediction, each.references[0]),
}
"""What scores one answer to a question about a passage."""


def reading(
    prompts: Sequence[str],
    before: Sequence[Answered],
    after: Sequence[Answered],
    *,
    metric: str,
    keep: float | None,
    task: str = "reading",
    split: str = "eval",
    seed: int = 0,
) -> list[Result]:
    """F1 and EM with their intervals and the worst regressions; `keep` (0 to 1) of the base's is to be left."""
    base, tuned = ([METRICS[metric](each) for each in side] for side in (before, after))

    def shown(index: int) -> dict[str, Any]:
        return {
            "prompt": prompts[index],
            "reference": " / ".join(dict.fromkeys(before[index].references)),
            "before": before[index].prediction,
            "after": after[index].prediction,
        }

    worst = [
        {**shown(each.index), "score_before": each.before.f1, "score_after": each.after.f1}
        for each in retention.worst(base, tuned)
    ]
    return [
        Result(
            task=task,
            metric=each.metric,
            split=split,
            count=each.count,
            before=each.before,
            after=each.after,
            higher_is_better=True,
            samples=[] if number else [shown(index) for index in range(min(SAMPLES, len(before)))],
            limit=each.least if keep is not None else None,
            interval=list(each.interval),
            regressions=[] if number else worst,
        )
        for number, each in enumerate(retention.compare(base, tuned, keep or 0.0, seed))
    ]


def math(
    problems: Sequence[dict[str, str]],
    before: Sequence[str],
    after: Sequence[str],
    *,
    tolerance: float,
    task: str = "math",
    split: str = "eval",
    seed: int = 0,
) -> list[Result]:
    """Accuracy in percent of answers to `problems` (problem, solution): of all, then of each type."""
    base, tuned = (
        [
            judge.judge(each["problem"], each["solution"], said, tolerance)
            for each, said in zip(problems, side, strict=True)
        ]
        for side in (before, after)
    )

    def result(part: str | None, chosen: list[int], samples: list[dict[str, Any]]) -> Result:
        scores = [[Scores(percent(side[index]), percent(side[index])) for index in chosen] for side in (base, tuned)]
        kept = retention.compare(scores[0], scores[1], 0.0, seed)[0]
        return Result(
            task=task,
            metric="accuracy",
            split=split,
            count=kept.count,
            before=kept.before,
            after=kept.after,
            higher_is_better=True,
            samples=samples,
            part=part,
            interval=list(kept.interval),
        )

    shown = [
        {
            "prompt": each["problem"],
            "reference": each["solution"],
            "before": before[index],
            "after": after[index],
        }
        for index, each in enumerate(problems[:SAMPLES])
    ]
    kinds = list(judge.accuracies(base))
    return [
        result(None, list(range(len(base))), shown),
        *(result(kind, [i for i, each in enumerate(base) if each.kind == kind], []) for kind in kinds),
    ]


def percent(judged: Judgement) -> float:
    """100 where the answer is right."""
    return 100.0 * judged.correct
