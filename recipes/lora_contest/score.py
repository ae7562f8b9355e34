"""evaluation.json from the answers: accuracy by type, what is left of the reading, and the contest's score.

python score.py --answers FOLDER --data RUN/data --base WEIGHTS --adapter RUN/adapter --output FOLDER
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from common.cli import call
from common.evaluation import comparison, contest, problems
from common.evaluation.parameters import trained_ratio
from common.evaluation.result import Result, write
from common.evaluation.rows import Answered
from common.tokenizer import load

SIDES = ("before", "after")


def rows(file: Path) -> list[Any]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def asked(prompt: str) -> str:
    """The problem in a prompt, as a person reads it."""
    found = problems.find(prompt)
    return found.text if found else prompt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--answers", "--data", "--base", "--adapter", "--output"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--tolerance", type=float, required=True)
    parser.add_argument("--keep", type=float, help="the share of the base's reading that is to be left")
    arguments = parser.parse_args()
    tokenizer = load(arguments.base)

    def answers(task: str, side: str) -> list[str]:
        return [tokenizer.decode(ids, skip_special=True) for ids in rows(arguments.answers / f"{task}-{side}.jsonl")]

    given = rows(arguments.data / "eval" / "prompts.jsonl")
    math = comparison.math(
        [{"problem": asked(row["prompt"]), "solution": row["reference"]} for row in given],
        *(answers("problems", side) for side in SIDES),
        tolerance=arguments.tolerance,
    )
    passages = rows(arguments.data / "reading.jsonl")
    references = [row["references"] for row in passages]
    ratio = trained_ratio(arguments.base, arguments.adapter)
    results = [*math, Result("contest", "trained parameters, %", "eval", 1, None, 100 * ratio, False)]
    if passages:  # without the reading test a submission does not count, and has no score
        said = (answers("reading", side) for side in SIDES)
        results += comparison.reading(
            [row["prompt"] for row in passages],
            *([Answered(*pair) for pair in zip(side, references, strict=True)] for side in said),
            metric="emf1",
            keep=arguments.keep,
        )
        results += scores(math[0], ratio)
    write(arguments.output, results)


def scores(accuracy: Result, ratio: float) -> list[Result]:
    """The contest's score in both phases; the base model trains nothing."""
    assert accuracy.before is not None
    return [
        Result(
            task="contest",
            metric=f"score, phase {phase}",
            split="eval",
            count=accuracy.count,
            before=contest.score(accuracy.before, 0.0, phase),
            after=contest.score(accuracy.after, ratio, phase),
            higher_is_better=True,
        )
        for phase in (1, 2)
    ]


if __name__ == "__main__":
    sys.exit(call(main))
