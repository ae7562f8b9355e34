"""SQuAD v1.1's own F1 and exact match: Rajpurkar et al. 2016, arXiv 1606.05250, section 6.

Standard library only: recipes' environments import this.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class Scores:
    """Of one answer, 0 to 100; or the mean over `count` answers."""

    f1: float
    em: float
    count: int = 1


def normalize(text: str) -> str:
    """Lower case, without ASCII punctuation, articles and surplus white space."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def official(prediction: str, references: Sequence[str]) -> Scores:
    """The best F1 and the best exact match over all reference answers. Raises ValueError where there is none."""
    if not references:
        raise ValueError("a question has at least one reference answer")
    predicted = normalize(prediction)
    wanted = [normalize(reference) for reference in references]
    return Scores(100 * max(_f1(predicted, each) for each in wanted), 100.0 * (predicted in wanted))


def _f1(prediction: str, reference: str) -> float:
    """Harmonic mean of precision and recall over the words in common, 0 to 1."""
    words, wanted = prediction.split(), reference.split()
    common = sum((Counter(words) & Counter(wanted)).values())
    if not common:
        return 0.0
    precision, recall = common / len(words), common / len(wanted)
    return 2 * precision * recall / (precision + recall)


def mean(scores: Sequence[Scores]) -> Scores:
    """The corpus score, from exact sums. Raises ValueError where there is no answer."""
    if not scores:
        raise ValueError("there is no answer to score")
    count = len(scores)
    f1, em = math.fsum(each.f1 for each in scores), math.fsum(each.em for each in scores)
    return Scores(f1 / count, em / count, count)
