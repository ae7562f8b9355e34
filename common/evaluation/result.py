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


def write(folder: Path, results: list[Result]) -> None:
    """Write evaluation.json into `folder`."""
    text = json.dumps([asdict(result) for result in results], ensure_ascii=False, indent=2)
    (folder / FILE).write_text(text + "\n", encoding="utf-8")


def read(file: Path) -> list[Result]:
    """The results in an evaluation.json. Raises TypeError for a row with other fields."""
    return [Result(**row) for row in json.loads(file.read_text(encoding="utf-8"))]
