"""The contest's problems, each once, with their types, split for training and scoring.

    PYTHONPATH=. python recipes/lora_contest/split.py --input train.json --eval-fraction 0.05 --output FOLDER

Writes FOLDER/train.jsonl and FOLDER/eval.jsonl in the contest's own layout, and FOLDER/summary.json. Every type is
split by itself, so that each is scored. Problems with the same numbers stay on one side: "8 cm by 7 cm" in training
would answer "7 cm by 8 cm" in scoring. Problems of no known type are trained on and never scored.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.cli import call
from common.errors import UserError
from common.evaluation import problems
from common.files import remove, whole_directory, write_json, write_text

SUMMARY = "summary.json"
LINE = '{"problem": TEXT, "solution": TEXT}'


@dataclass(frozen=True)
class Row:
    problem: str
    solution: str
    kind: str
    group: tuple[str, ...]
    """Rows of one group ask the same of the same numbers."""


def read(file: Path) -> Iterator[Row]:
    """The rows of a file in JSON lines. Raises UserError that names the line for anything else."""
    with open(file, encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise UserError("is not JSON", file=file, line=number, found=str(error), expected=LINE) from None
            fields = [row.get(name) if isinstance(row, dict) else None for name in ("problem", "solution")]
            if not all(isinstance(field, str) and field.strip() for field in fields):
                found = json.dumps(row, ensure_ascii=False)[:80]
                raise UserError("is no problem with its solution", file=file, line=number, found=found, expected=LINE)
            yield typed(str(fields[0]), str(fields[1]))


def typed(problem: str, solution: str) -> Row:
    """The row with its type and its group."""
    found = problems.find(problem)
    if found is None:
        return Row(problem, solution, problems.OTHER, (normal(problem),))
    signs = "".join(sorted(character for character in found.text if character in "+*/×÷"))
    return Row(problem, solution, found.kind, (found.kind, signs, *sorted(found.numbers)))


def normal(text: str) -> str:
    """What two copies of one text have in common: width, case and spaces apart."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def unique(rows: Iterable[Row], counts: Counter[str]) -> list[Row]:
    """Each problem once, with its first solution; counts repeated ones, and those whose solutions differ."""
    kept: dict[str, Row] = {}
    for row in rows:
        counts["rows"] += 1
        first = kept.setdefault(normal(row.problem), row)
        if first is not row:
            counts["repeated"] += 1
            counts["repeated with another solution"] += normal(first.solution) != normal(row.solution)
    return list(kept.values())


def split(rows: list[Row], eval_fraction: float, max_per_type: int | None, seed: int) -> tuple[list[Row], list[Row]]:
    """Rows for training and for scoring, both in mixed order.

    Of each type, whole groups go to scoring until it has `eval_fraction` of the type's rows, one at least where
    there are two groups; of the rest at most `max_per_type` are trained.
    """
    numbers = random.Random(seed)
    by_kind: dict[str, dict[tuple[str, ...], list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        by_kind[row.kind][row.group].append(row)
    train: list[Row] = []
    scored: list[Row] = []
    for kind in sorted(by_kind):
        groups = list(by_kind[kind].values())
        numbers.shuffle(groups)
        wanted = 0.0 if kind == problems.OTHER else eval_fraction * sum(map(len, groups))
        of_kind: list[Row] = []
        while len(of_kind) < wanted and len(groups) > 1:
            of_kind += groups.pop()
        scored += of_kind
        rest = [row for group in groups for row in group]
        numbers.shuffle(rest)
        train += rest[:max_per_type]
    numbers.shuffle(train)
    numbers.shuffle(scored)
    return train, scored


def run(source: Path, output: Path, eval_fraction: float, max_per_type: int | None, seed: int) -> dict[str, Any]:
    """Split the file `source` into the folder `output`, whole or not at all; returns the summary."""
    if not source.is_file():
        raise UserError("there is no such file", file=source, expected=f"JSON lines, each {LINE}")
    counts: Counter[str] = Counter()
    rows = unique(read(source), counts)
    train, scored = split(rows, eval_fraction, max_per_type, seed)
    if not scored:
        raise UserError(
            "no problem is left to score",
            file=source,
            found=f"{len(rows)} problems, {sum(row.kind != problems.OTHER for row in rows)} of the known types",
            expected="two problems at least of one type",
        )
    of_kind = {part: Counter(row.kind for row in of) for part, of in (("train", train), ("eval", scored))}
    kinds = [*problems.KINDS, problems.OTHER]
    summary = {
        **counts,
        "types": {kind: {part: of_kind[part][kind] for part in of_kind} for kind in kinds},
        "left out by max_per_type": len(rows) - len(train) - len(scored),
    }
    if (output / SUMMARY).is_file():  # what an earlier call made
        remove(output)
    with whole_directory(output) as folder:
        for name, part in (("train", train), ("eval", scored)):
            lines = (json.dumps({"problem": r.problem, "solution": r.solution}, ensure_ascii=False) for r in part)
            write_text(folder / f"{name}.jsonl", "".join(line + "\n" for line in lines))
        write_json(folder / SUMMARY, summary)
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(description="The contest's problems, each once, split by type")
    parser.add_argument("--input", type=Path, required=True, help="the contest's train.json: JSON lines")
    parser.add_argument("--eval-fraction", type=float, default=0.05, help="of each type, for scoring")
    parser.add_argument("--max-per-type", type=int, help="rows of one type that are trained, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True, help="the folder to write")
    arguments = parser.parse_args()
    if not 0 < arguments.eval_fraction < 1:
        raise UserError("--eval-fraction is a share", found=arguments.eval_fraction, expected="above 0 and below 1")
    if arguments.max_per_type is not None and arguments.max_per_type < 1:
        raise UserError("--max-per-type counts rows", found=arguments.max_per_type, expected="1 or more")
    summary = run(arguments.input, arguments.output, arguments.eval_fraction, arguments.max_per_type, arguments.seed)
    print(json.dumps(summary, ensure_ascii=False, indent=2))


if __name__ == "__main__":
    sys.exit(call(main))
