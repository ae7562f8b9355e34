"""From files to token rows, block by block: read, check, template, tokenize, fit to length.

Blocks are independent of each other, so workers take them side by side; what they make is taken in the
order of the file, so the output is the same for any number of workers.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from common.data import blocks, files, records
from common.data.blocks import Block
from common.data.layouts import Layout
from common.data.lengths import fit, masked
from common.data.options import Options
from common.data.parse import Parsed, parse
from common.data.sources import Probe
from common.data.tokens import Renderer, TokenRows
from common.errors import UserError

T = TypeVar("T")
S = TypeVar("S")


@dataclass
class Reject:
    """One record that is not in the output, and why."""

    file: str
    line: int
    reason: str
    found: str | None = None


@dataclass
class Counts:
    """What became of the records."""

    records: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    cut: int = 0

    def drop(self, reason: str, count: int) -> None:
        """Count `count` records as dropped for `reason`."""
        if count:
            self.dropped[reason] = self.dropped.get(reason, 0) + count

    def add(self, other: Counts) -> None:
        """Add the counts of another part."""
        self.records += other.records
        self.cut += other.cut
        for reason, count in other.dropped.items():
            self.drop(reason, count)


@dataclass
class Chunk:
    """The token rows of one block."""

    rows: TokenRows
    counts: Counts
    rejects: list[Reject]
    bytes: int


class BlockWorker:
    """Turns one block into a chunk. Raises UserError for the first bad record where the options say stop."""

    def __init__(self, options: Options, layout: Layout, renderer: Renderer, *, split_later: bool = False) -> None:
        self.options = options
        self.layout = layout
        self.renderer = renderer
        self.split_later = split_later  # concatenating packs cuts long documents itself

    def __call__(self, block: Block) -> Chunk:
        parsed = parse(block, self.layout)
        options = self.options
        batch = parsed.batch
        counts = Counts(records=parsed.records)
        counts.drop("empty document or heading", parsed.blank)
        rejects: list[Reject] = []
        bad, odd, problems = records.check(batch)
        problems = sorted([*parsed.problems, *problems], key=lambda problem: problem.row)
        if problems:
            self._reject(block, parsed, problems, counts, rejects)
        keep = ~bad
        if odd.any():
            batch = self._odd(block, parsed, odd, counts, rejects)
            keep = keep & (~odd if options.odd_turns != "cut" else (np.diff(batch.offsets) > 0))
        batch = batch.select(keep)
        if options.system is not None and len(batch):
            batch = batch.with_system(options.system)
        rows = self.renderer.render(batch)
        if not self.split_later:
            rows, dropped, cut = fit(rows, options.max_length, options.on_long)
            counts.cut += int(cut.sum())
            if dropped.any():
                self._long(block, parsed, batch.source[dropped], counts, rejects)
        nothing = masked(rows)
        if nothing.any():
            self._drop(block, parsed, rows.source[nothing], "no trained token left", counts, rejects)
            rows = rows.select(~nothing)
        return Chunk(rows, counts, rejects, len(block.data) or (block.table.nbytes if block.table is not None else 0))

    def _reject(
        self, block: Block, parsed: Parsed, problems: list[records.Problem], counts: Counts, rejects: list[Reject]
    ) -> None:
        lines = parsed.lines()
        if self.options.on_error == "stop":
            first = problems[0]
            hint = "put it right, or leave such records out with --on-error skip"
            raise UserError(
                first.problem,
                file=block.file,
                line=int(lines[first.row]),
                found=first.found,
                expected=first.expected,
                hint=hint,
            )
        for problem in problems:
            rejects.append(Reject(str(block.file), int(lines[problem.row]), problem.problem, problem.found))
        counts.drop("malformed", len(problems))

    def _odd(
        self, block: Block, parsed: Parsed, odd: npt.NDArray[np.bool_], counts: Counts, rejects: list[Reject]
    ) -> records.Batch:
        batch = parsed.batch
        policy = self.options.odd_turns
        rows = batch.source[odd]
        if policy == "stop":
            row = int(rows[0])
            if self.options.on_error == "stop":
                raise UserError(
                    "a conversation that does not end with an answer",
                    file=block.file,
                    line=int(parsed.lines()[row]),
                    found=f"{int(np.diff(batch.offsets)[odd][0])} messages",
                    expected="each user message followed by the assistant's",
                    hint="--odd-turns drop leaves such records out, cut removes the last message",
                )
            self._drop(block, parsed, rows, "odd number of turns", counts, rejects)
            return batch
        if policy == "drop":
            self._drop(block, parsed, rows, "odd number of turns", counts, rejects)
            return batch
        lengths = np.diff(batch.offsets)
        keep = np.ones(len(batch.roles), dtype=np.bool_)
        keep[batch.offsets[1:][odd] - 1] = False
        lengths = lengths - odd
        # A question without any answer has nothing left to train.
        starts = batch.offsets[:-1]
        alone = odd & (lengths - (batch.roles[starts] == records.SYSTEM) == 0)
        keep &= ~np.repeat(alone, np.diff(batch.offsets))
        lengths[alone] = 0
        self._drop(block, parsed, batch.source[alone], "odd number of turns", counts, rejects)
        counts.cut += int((odd & ~alone).sum())
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        return records.Batch(batch.texts.filter(pa.array(keep)), batch.roles[keep], offsets, batch.source)

    def _long(
        self, block: Block, parsed: Parsed, rows: npt.NDArray[np.int64], counts: Counts, rejects: list[Reject]
    ) -> None:
        if self.options.on_long == "stop":
            raise UserError(
                "a record is too long",
                file=block.file,
                line=int(parsed.lines()[rows[0]]),
                expected=f"at most {self.options.max_length} tokens",
                hint="raise --max-length, or choose --on-long drop, cut, turns or split",
            )
        self._drop(block, parsed, rows, "too long", counts, rejects)

    def _drop(
        self,
        block: Block,
        parsed: Parsed,
        rows: npt.NDArray[np.int64],
        reason: str,
        counts: Counts,
        rejects: list[Reject],
    ) -> None:
        if not len(rows):
            return
        counts.drop(reason, len(rows))
        lines = parsed.lines()
        rejects.extend(Reject(str(block.file), int(line), reason) for line in lines[rows])


def read_blocks(probe: Probe) -> Iterator[Block]:
    """All blocks of all files of an input; each file must be of the form of its own content."""
    columns = probe.make_layout().schema().names
    for path in probe.files:
        file = files.recognise(path)
        wanted = _present(file, columns) if file.form in ("parquet", "arrow") else None
        yield from blocks.read(file, columns=wanted)


def _present(file: files.InputFile, columns: list[str]) -> list[str]:
    names = blocks.column_names(file.path, file.form)
    return [name for name in columns if name in names]


def in_order(items: Iterable[S], work: Callable[[S], T], workers: int) -> Iterator[T]:
    """work(item) of every item, in their order, `workers` at a time; at most that many more are held."""
    if workers <= 1:
        for item in items:
            yield work(item)
        return
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def default_workers() -> int:
    """As many as the machine has for this process, at most four: more only wait for the writer."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(available, 4)


def input_bytes(paths: Iterable[Path]) -> int:
    """The size of the files as they are stored."""
    return sum(path.stat().st_size for path in paths)
