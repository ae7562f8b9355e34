"""The contest's score: accuracy and how few parameters are trained, for a model that still reads.

Standard library only: recipes' environments import this.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# The 2024 Ascend AI contest, MindSpore track: a submission counts with 90 % of the base's F1 and EM
KEPT = 0.9
ACCURACY_WEIGHT = 0.7
FEW_PARAMETERS_WEIGHT = 0.3
_RATIO_FACTOR = {1: 1, 2: 10}

Phase = Literal[1, 2]


@dataclass(frozen=True)
class Submission:
    """Percent, 0 to 100, but for `ratio`."""

    accuracy: float
    f1: float
    em: float
    ratio: float
    """Trained parameters over those of the base model, 0 to 1."""


def score(accuracy: float, ratio: float, phase: Phase) -> float:
    """`accuracy` (percent) and `ratio` (0 to 1) weighed as the contest did: 0 to 1, in phase 2 also below."""
    return (1 - _RATIO_FACTOR[phase] * ratio) * FEW_PARAMETERS_WEIGHT + accuracy / 100 * ACCURACY_WEIGHT


def counts(submission: Submission, base_f1: float, base_em: float) -> bool:
    """Whether the reading test is passed: at least 90 % of the base's F1 and of its EM."""
    return submission.f1 >= base_f1 * KEPT and submission.em >= base_em * KEPT
