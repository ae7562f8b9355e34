"""A block: whole records of one file, what one worker takes at a time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from pickle import PickleBuffer
from typing import Any

import pyarrow as pa

# The longest record that is read, so that memory stays within bounds: a book has about one megabyte.
RECORD_BYTES = 8 * 2**20

TOO_LONG = "too long"


@dataclass
class Block:
    """Whole records of one file.

    kind: "lines" (one JSON object a line), "elements" (JSON objects, one after the other), "text"
    (lines of text), "table", or TOO_LONG: one record that was passed over. first_line counts the file's
    lines from 1, first_row its records from 0 where they are counted before parsing (tables), else it is 0.
    """

    file: Path
    kind: str
    data: bytes
    first_line: int = 1
    first_row: int = 0
    table: pa.RecordBatch | None = None

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.data) if self.table is None else int(self.table.nbytes)

    def __getstate__(self) -> dict[str, Any]:
        """For another process, with pickle's protocol 5: of a table only what this block has of it."""
        state = {**vars(self), "data": PickleBuffer(self.data)}
        if self.table is not None:
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, self.table.schema) as writer:
                writer.write_batch(self.table)
            state["table"] = sink.getvalue()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        if state["table"] is not None:
            state["table"] = pa.ipc.open_stream(state["table"]).read_next_batch()
        vars(self).update(state)
