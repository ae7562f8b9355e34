"""From a block to records that are in order: parse, check, and do with the others what the options say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from common.data.block import Block
from common.data.layouts import Layout
from common.data.parse import Parsed, parse
from common.data.records import SYSTEM, Batch, Problem, arrow, check
from common.data.rejects import Counts, Reject
from common.errors import UserError


@dataclass
class CheckedRecords:
    """The records of one block that passed, and an account of those that did not."""

    block: Block
    parsed: Parsed
    batch: Batch
    counts: Counts
    rejects: list[Reject] = field(default_factory=list)

    def line(self, row: int) -> int:
        """Where record `row` of the block stands in its file."""
        return int(self.parsed.lines()[row])

    def drop(self, rows: npt.NDArray[np.int64], reason: str) -> None:
        """Account for records (by their number in the block) that are left out."""
        if len(rows):
            self.counts.drop(reason, len(rows))
            lines = self.parsed.lines()
            self.rejects.extend(Reject(str(self.block.file), int(line), reason) for line in lines[rows])


class RecordChecker:
    """Turns blocks into checked records.

    on_error: "stop" raises UserError for the first malformed record of a block, "skip" leaves it out.
    odd_turns: what happens to a conversation without a last answer: "stop" (malformed), "drop", or "cut",
    which takes the last question away. system: put before conversations that have no system turn.
    """

    def __init__(self, layout: Layout, *, on_error: str, odd_turns: str, system: str | None) -> None:
        self.layout = layout
        self.on_error = on_error
        self.odd_turns = odd_turns
        self.system = system

    def __call__(self, block: Block) -> CheckedRecords:
        parsed = parse(block, self.layout)
        records = CheckedRecords(block, parsed, parsed.batch, Counts(records=parsed.records))
        records.counts.drop("empty document or heading", parsed.blank)
        bad, odd, problems = check(parsed.batch)
        problems.extend(parsed.problems)
        if self.odd_turns == "stop":
            problems.extend(self._odd_problems(parsed.batch, odd))
            bad |= odd
        if problems:
            self._reject(records, sorted(problems, key=lambda problem: problem.row))
        if self.odd_turns == "cut":
            records.batch, alone = without_last_question(records.batch, odd)
            records.counts.cut += int((odd & ~alone).sum())
            odd = alone
        if self.odd_turns != "stop":
            records.drop(parsed.batch.source[odd], "odd number of turns")
            bad |= odd
        records.batch = records.batch.select(~bad)
        if self.system is not None and len(records.batch):
            records.batch = records.batch.with_system(self.system)
        return records

    def _odd_problems(self, batch: Batch, odd: npt.NDArray[np.bool_]) -> list[Problem]:
        expected = "an answer to each question (--odd-turns drop leaves such records out, cut the last question)"
        lengths = np.diff(batch.offsets)
        return [
            Problem(int(batch.source[row]), "the last question has no answer", f"{lengths[row]} turns", expected)
            for row in np.flatnonzero(odd).tolist()
        ]

    def _reject(self, records: CheckedRecords, problems: list[Problem]) -> None:
        if self.on_error == "stop":
            _stop(records, problems[0])
        file = str(records.block.file)
        lines = records.parsed.lines()
        records.rejects.extend(Reject(file, int(lines[p.row]), p.problem, p.found) for p in problems)
        records.counts.drop("malformed", len(problems))


def _stop(records: CheckedRecords, problem: Problem) -> NoReturn:
    raise UserError(
        problem.problem,
        file=records.block.file,
        line=records.line(problem.row),
        found=problem.found,
        expected=problem.expected,
        hint="put it right, or leave such records out with --on-error skip",
    )


def without_last_question(batch: Batch, odd: npt.NDArray[np.bool_]) -> tuple[Batch, npt.NDArray[np.bool_]]:
    """The batch without the last turn of its odd rows, and which of them (bool [rows]) have nothing left."""
    if not odd.any():
        return batch, odd
    starts = batch.offsets[:-1]
    lengths = np.diff(batch.offsets)
    alone = odd & (lengths - (batch.roles[starts] == SYSTEM) == 1)
    shorter = odd & ~alone
    keep = np.ones(len(batch.roles), dtype=np.bool_)
    keep[batch.offsets[1:][shorter] - 1] = False
    offsets = np.concatenate(([0], np.cumsum(lengths - shorter)))
    return Batch(batch.texts.filter(arrow(keep)), batch.roles[keep], offsets, batch.source), alone
