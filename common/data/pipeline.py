"""From files to token rows, block by block: read, check, template, tokenize, fit to length.

Blocks are independent of each other, so workers take them side by side; what they make is taken in the
order of the file, so the output is the same for any number of workers.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from common.data import blocks, files
from common.data.blocks import Block
from common.data.checked import CheckedRecords, RecordChecker
from common.data.layouts import Layout
from common.data.lengths import fit, masked
from common.data.options import Options
from common.data.rejects import Counts, Reject
from common.data.sources import Probe
from common.data.tokens import Renderer, TokenRows
from common.errors import UserError

T = TypeVar("T")
S = TypeVar("S")


@dataclass
class Chunk:
    """The token rows of one block."""

    rows: TokenRows
    counts: Counts
    rejects: list[Reject]
    bytes: int


class TokenWorker:
    """Turns one block into a chunk of token rows no longer than the options allow."""

    def __init__(self, options: Options, layout: Layout, renderer: Renderer, *, alone: bool) -> None:
        self.options = options
        self.alone = alone
        self.renderer = renderer
        self.check = RecordChecker(
            layout, on_error=options.on_error, odd_turns=options.odd_turns, system=options.system
        )

    def __call__(self, block: Block) -> Chunk:
        records = self.check(block)
        # Where blocks run side by side the tokenizer keeps to its thread; alone it may use every core.
        rows = self.renderer.render(records.batch, parallel=None if self.alone else False)
        if self.options.packing != "concat":  # that cuts long documents itself, and loses nothing
            long_rows = rows
            rows, dropped, cut = fit(rows, self.options.max_length, self.options.on_long)
            records.counts.cut += int(cut.sum())
            if dropped.any():
                self._long(records, long_rows, dropped)
        nothing = masked(rows)
        if nothing.any():
            records.drop(rows.source[nothing], "no trained token left")
            rows = rows.select(~nothing)
        size = len(block.data) if block.table is None else block.table.nbytes
        return Chunk(rows, records.counts, records.rejects, size)

    def _long(self, records: CheckedRecords, rows: TokenRows, dropped: npt.NDArray[np.bool_]) -> None:
        if self.options.on_long == "stop":
            first = int(np.argmax(dropped))
            raise UserError(
                "a record is too long",
                file=records.block.file,
                line=records.line(int(rows.source[first])),
                found=f"{int(np.diff(rows.offsets)[first])} tokens",
                expected=f"at most {self.options.max_length}",
                hint="raise --max-length, or choose --on-long drop, cut, turns or split",
            )
        records.drop(rows.source[dropped], "too long")


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
