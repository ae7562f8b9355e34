"""From files to token rows, block by block: read, check, template, tokenize, fit to length.

Blocks are independent of each other, so workers take them side by side; what they make is taken in the
order of the file, so the output is the same for any number of workers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from common.data import blocks, files, tables
from common.data.block import Block
from common.data.checked import CheckedRecords, RecordChecker
from common.data.layouts import Layout
from common.data.lengths import fit, masked
from common.data.options import Options
from common.data.rejects import Counts, Reject
from common.data.sources import Probe
from common.data.tokens import Renderer, TokenRows
from common.data.workers import cores
from common.errors import UserError

_LARGE = 16 * 2**20  # bytes
_PACKED = 5  # how many times larger text is than the archive it came from, about


@dataclass
class Chunk:
    """The token rows of one block."""

    rows: TokenRows
    counts: Counts
    rejects: list[Reject]
    bytes: int


class TokenWorker:
    """Turns one block into a chunk of token rows no longer than the options allow."""

    def __init__(self, options: Options, layout: Layout, renderer: Renderer) -> None:
        self.options = options
        self.renderer = renderer
        self.check = RecordChecker(
            layout, on_error=options.on_error, odd_turns=options.odd_turns, system=options.system
        )

    def __call__(self, block: Block) -> Chunk:
        records = self.check(block)
        rows = self.renderer.render(records.batch)
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
        return Chunk(dataclasses.replace(rows, rounds=None), records.counts, records.rejects, block.size)

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
    layout = probe.make_layout()
    for path in probe.files:
        file = files.recognise(path)
        wanted = _columns(file, layout) if file.form in ("parquet", "arrow") else None
        yield from blocks.read(file, columns=wanted, by_line=layout.name == "lines")


def _columns(file: files.InputFile, layout: Layout) -> list[str] | None:
    """Which columns of a table are read; all of them (None) where one is missing, so that the message can name them."""
    names = tables.column_names(file.path, file.form)
    if any(layout.column(name) not in names for name in layout.required):
        return None
    return [name for name in layout.schema().names if name in names]


def is_large(probe: Probe) -> bool:
    """Whether an input is worth the start of several processes and of the tokenizer's engine for large inputs."""
    stored = sum(path.stat().st_size for path in probe.files)
    return stored * (_PACKED if probe.compression or probe.form == "parquet" else 1) > _LARGE


def number_of_workers(asked: int, probe: Probe, most: int) -> int:
    """How many processes take the blocks of an input; 0: this one does all of it.

    Where none are `asked` for: one a core and at most `most`, if the input is large.
    """
    if asked == 0 and is_large(probe):
        asked = min(cores(), most)
    return asked if asked > 1 else 0
