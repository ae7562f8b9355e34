"""What a model keeps of what its base could do: the same prompts before and after, a threshold, a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from common.evaluation import squad
from common.evaluation.squad import Scores

RESAMPLES = 2000
CONFIDENCE = 0.95
WORST = 10  # regressions that are shown
_AT_ONCE = 2**22  # drawn indices that are held at a time


@dataclass(frozen=True)
class Kept:
    """One metric before and after."""

    metric: str
    count: int
    before: float
    after: float
    least: float
    """What `after` must reach."""
    interval: tuple[float, float]
    """95 % confidence interval of after - before."""

    @property
    def passed(self) -> bool:
        return self.after >= self.least


@dataclass(frozen=True)
class Regression:
    """A prompt that is answered worse than before."""

    index: int
    """Of the prompt, from 0."""
    before: Scores
    after: Scores


def compare(before: Sequence[Scores], after: Sequence[Scores], share: float, seed: int = 0) -> list[Kept]:
    """F1 and EM of the same prompts before and after; `share` of the base's (0 to 1) is to be kept.

    Raises ValueError where the two are not answers to the same number of prompts, or to none.
    """
    if len(before) != len(after) or not before:
        raise ValueError(f"{len(before)} answers before and {len(after)} after: they are not to the same prompts")
    made = []
    for metric in ("f1", "em"):
        pair = np.array([[getattr(each, metric) for each in side] for side in (before, after)])
        base, tuned = (getattr(squad.mean(side), metric) for side in (before, after))
        interval = paired_bootstrap(pair[1] - pair[0], seed)
        made.append(Kept(metric.upper(), len(before), base, tuned, share * base, interval))
    return made


def paired_bootstrap(differences: np.ndarray, seed: int = 0, resamples: int = RESAMPLES) -> tuple[float, float]:
    """The 95 % percentile interval of the mean of `differences`, one for each prompt.

    Prompts are drawn with replacement, each with both of its answers (Efron and Tibshirani 1993, chapter 13;
    Koehn 2004 for paired systems). The same seed gives the same interval.
    """
    random, count = np.random.default_rng(seed), len(differences)
    means: list[np.ndarray] = []
    rows = max(1, _AT_ONCE // count)
    for start in range(0, resamples, rows):
        drawn = random.integers(0, count, (min(rows, resamples - start), count))
        means.append(differences[drawn].mean(axis=1))
    low, high = np.quantile(np.concatenate(means), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def worst(before: Sequence[Scores], after: Sequence[Scores], most: int = WORST) -> list[Regression]:
    """The prompts that lost most F1, then EM; the worst first, in the order of the prompts where equal."""
    pairs = [Regression(index, *pair) for index, pair in enumerate(zip(before, after, strict=True))]
    lost = [each for each in pairs if (each.after.f1, each.after.em) < (each.before.f1, each.before.em)]
    return sorted(lost, key=lambda each: (each.after.f1 - each.before.f1, each.after.em - each.before.em))[:most]
