"""Prepared rows as Arrow files in the layout of `datasets.save_to_disk`, readable by datasets 2 to 5 and by pyarrow."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from common.data.packing import PackedRows
from common.data.records import arrow
from common.data.row_writer import RowWriter
from common.files import write_json

COLUMNS = ("input_ids", "labels", "position_ids")
_SCHEMA = pa.schema([(name, pa.list_(pa.int32())) for name in COLUMNS])
_SHARD_BYTES = 512 * 2**20
_BATCH_ROWS = 1024

# "Sequence" is what datasets 2 writes, and what later releases still read.
_FEATURES = {
    name: {"feature": {"dtype": "int32", "_type": "Value"}, "_type": "Sequence", "length": -1} for name in COLUMNS
}


class ArrowWriter(RowWriter):
    """Writes rows into `folder`, in shards; `close` names the shards and writes what `datasets` needs beside them."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._shards: list[Path] = []
        self._file: pa.NativeFile | None = None
        self._writer: pa.RecordBatchStreamWriter | None = None
        self._digest = hashlib.sha256()

    def write(self, rows: PackedRows) -> None:
        for start in range(0, len(rows), _BATCH_ROWS):
            offsets = rows.offsets[start : start + _BATCH_ROWS + 1]
            a, b = int(offsets[0]), int(offsets[-1])
            ends = arrow((offsets - a).astype(np.int32))
            parts = (rows.ids[a:b], rows.labels[a:b], rows.positions[a:b])
            lists = [pa.ListArray.from_arrays(ends, arrow(part)) for part in parts]
            self._current().write_batch(pa.record_batch(lists, schema=_SCHEMA))
            self._digest.update(parts[0][:64].tobytes())
        self.count(rows)

    def _current(self) -> pa.RecordBatchStreamWriter:
        if self._file is not None and self._file.tell() > _SHARD_BYTES:
            self.abandon()
        if self._writer is None:
            path = self.folder / f"shard-{len(self._shards):05d}.arrow"
            self._shards.append(path)
            self._file = pa.OSFile(str(path), "wb")
            self._writer = pa.ipc.new_stream(self._file, _SCHEMA)
        return self._writer

    def abandon(self) -> None:
        if self._writer is not None and self._file is not None:
            self._writer.close()
            self._file.close()
        self._writer = self._file = None

    def close(self) -> None:
        self._current()
        self.abandon()
        names = [f"data-{i:05d}-of-{len(self._shards):05d}.arrow" for i in range(len(self._shards))]
        for path, name in zip(self._shards, names, strict=True):
            path.rename(self.folder / name)
        state: dict[str, Any] = {
            "_data_files": [{"filename": name} for name in names],
            "_fingerprint": self._digest.hexdigest()[:16],
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": None,
        }
        write_json(self.folder / "state.json", state)
        write_json(
            self.folder / "dataset_info.json",
            {"citation": "", "description": "", "features": _FEATURES, "homepage": "", "license": ""},
        )


def write_split_names(folder: Path, names: list[str]) -> None:
    """Mark `folder` as holding several datasets, for `datasets.load_from_disk`."""
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": names}) + "\n", encoding="utf-8")
