"""Held-out loss and perplexity from sums over tokens.

Standard library only: recipes' environments import this.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from common.evaluation.result import Result


@dataclass(frozen=True)
class LossSum:
    """Negative log-likelihood in nats, summed over `tokens` trained tokens."""

    total: float
    tokens: int

    @property
    def mean(self) -> float:
        """Nats per token. Raises ValueError where there is no token."""
        if self.tokens < 1:
            raise ValueError("the held-out data has no trained token")
        return self.total / self.tokens

    @property
    def perplexity(self) -> float:
        """exp of the mean; infinite where that is beyond a float."""
        return math.exp(self.mean) if self.mean < 700 else math.inf


def results(before: LossSum, after: LossSum, split: str = "eval") -> list[Result]:
    """Loss and perplexity as rows of evaluation.json."""
    return [
        Result("held-out data", "loss", split, after.tokens, before.mean, after.mean, False),
        Result("held-out data", "perplexity", split, after.tokens, before.perplexity, after.perplexity, False),
    ]
