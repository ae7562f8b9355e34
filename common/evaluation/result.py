"""evaluation.json: what was measured before and after fine-tuning.

Standard library only: recipes' environments import this.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FILE = "evaluation.json"


@dataclass(frozen=True)
class Result:
    """One metric of one task, on the base model (`before`) and on the fine-tuned one (`after`)."""

    task: str
    metric: str
    split: str
    count: int
    """What the metric is a mean or share of: tokens, samples."""
    before: float | None
    after: float
    higher_is_better: bool
    samples: list[dict[str, Any]] = field(default_factory=list)
    """Some of what was measured, for a person: prompt, reference, before, after."""
    part: str | None = None
    """The part of the task that this is of, such as a type of problem; None is the whole."""
    limit: float | None = None
    """What `after` must at least be; at most, where lower is better. None where nothing is asked."""
    interval: list[float] | None = None
    """95 % confidence interval of after - before: its lower and its upper end."""
    regressions: list[dict[str, Any]] = field(default_factory=list)
    """What is answered worse than before, the worst first: prompt, reference, before, after, and both scores."""

    @property
    def passed(self) -> bool:
        """Whether `limit` is kept; a figure that is not a number keeps none."""
        if self.limit is None:
            return True
        return self.after >= self.limit if self.higher_is_better else self.after <= self.limit

    @property
    def name(self) -> str:
        """Task and metric, as a person calls them."""
        return f"{self.task} {self.metric}" + (f" ({self.part})" if self.part else "")


def write(folder: Path, results: list[Result]) -> None:
    """Write evaluation.json into `folder`."""
    text = json.dumps([asdict(result) for result in results], ensure_ascii=False, indent=2)
    (folder / FILE).write_text(text + "\n", encoding="utf-8")


def read(file: Path) -> list[Result]:
    """The results in an evaluation.json. Raises ValueError for no JSON, TypeError for a row with other fields."""
    return [Result(**row) for row in json.loads(file.read_text(encoding="utf-8"))]


def failed(results: list[Result]) -> str | None:
    """One sentence on the limits that are not kept; None where all are."""
    broken = [each for each in results if not each.passed]
    words = {True: "at least", False: "at most"}
    said = [
        f"{each.name} is {each.after:.2f}, {words[each.higher_is_better]} {each.limit:.2f} is asked" for each in broken
    ]
    return "; ".join(said) or None
