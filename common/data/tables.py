"""Blocks of Parquet and Arrow files."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from common.data.block import Block
from common.data.files import BLOCK_BYTES
from common.errors import UserError

TABLE_ROWS = 8192
TABLE_BYTES = BLOCK_BYTES


def read_parquet(path: Path, columns: list[str] | None) -> Iterator[Block]:
    from pyarrow import parquet

    try:
        # Pages are read as they are needed: a row group may be as large as the file
        with parquet.ParquetFile(path, memory_map=False, buffer_size=2**20, pre_buffer=False) as source:
            row = 0
            for number in range(source.num_row_groups):
                group = source.metadata.row_group(number)
                each = max(group.total_byte_size // max(group.num_rows, 1), 1)
                size = min(max(TABLE_BYTES // each, 1), TABLE_ROWS)
                for batch in source.iter_batches(size, row_groups=[number], columns=columns, use_threads=False):
                    for table in _pieces(batch):
                        yield Block(path, "table", b"", first_row=row, table=table)
                        row += table.num_rows
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise _damaged(path, error) from None


def _pieces(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The rows of `batch` in pieces of about a block's size."""
    each = max(batch.nbytes // max(batch.num_rows, 1), 1)
    size = min(max(TABLE_BYTES // each, 1), TABLE_ROWS)
    for start in range(0, batch.num_rows, size):
        yield batch.slice(start, size)


def read_arrow(path: Path, columns: list[str] | None) -> Iterator[Block]:
    row = 0
    try:
        with open(path, "rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)  # closed by the last batch that lies in it
        for batch in _batches(pa.BufferReader(pa.py_buffer(mapped))):
            for table in _pieces(batch.select(columns) if columns is not None else batch):
                yield Block(path, "table", b"", first_row=row, table=table)
                row += table.num_rows
                if hasattr(mmap, "MADV_DONTNEED"):
                    mapped.madvise(mmap.MADV_DONTNEED)  # what was read would count as ours until the end
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise _damaged(path, error) from None


def _batches(source: pa.NativeFile) -> Iterator[pa.RecordBatch]:
    file_format = source.read(6) == b"ARROW1"
    source.seek(0)
    if file_format:
        reader = pa.ipc.open_file(source)
        return (reader.get_batch(i) for i in range(reader.num_record_batches))
    return iter(pa.ipc.open_stream(source))


def column_names(path: Path, form: str) -> list[str]:
    """The columns of a Parquet or Arrow file; raises UserError where it is damaged."""
    try:
        if form == "parquet":
            from pyarrow import parquet

            return list(parquet.read_schema(path).names)
        with pa.memory_map(str(path)) as source:
            head = source.read(6)
            source.seek(0)
            opened = pa.ipc.open_file(source) if head == b"ARROW1" else pa.ipc.open_stream(source)
            return list(opened.schema.names)
    except pa.ArrowInvalid as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError("the file is damaged", file=path, found=str(error).split("\n")[0], hint="fetch or make it again")
