"""Prepared data read back: their rows, their meta.json, their lengths."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from common.errors import UserError


def arrow_files(folder: Path) -> list[Path]:
    """The Arrow files of one prepared data set; raises UserError when `folder` is none."""
    state = folder / "state.json"
    if not state.is_file():
        if (folder / "dataset_dict.json").is_file():
            hint = f"name one of them, as {folder / 'train'}"
            raise UserError("the folder holds several data sets", file=folder, hint=hint)
        raise UserError("not prepared data", file=folder, expected="a folder that `prepare` wrote")
    return [folder / str(entry["filename"]) for entry in json.loads(state.read_text(encoding="utf-8"))["_data_files"]]


def read_meta(folder: Path) -> dict[str, Any]:
    """The meta.json of prepared data, from `folder` or, for train/ and eval/, from the one above it."""
    for place in (folder, folder.parent):
        if (place / "meta.json").is_file():
            meta: dict[str, Any] = json.loads((place / "meta.json").read_text(encoding="utf-8"))
            return meta
    raise UserError("no meta.json", file=folder, expected="a folder that `prepare` wrote")


def batches(folder: Path) -> Iterator[pa.RecordBatch]:
    """The record batches of a prepared data set, in order."""
    for file in arrow_files(folder):
        try:
            with pa.memory_map(str(file)) as source:
                yield from pa.ipc.open_stream(source)
        except (pa.ArrowInvalid, OSError) as error:
            found = str(error).split("\n")[0]
            raise UserError("the file is damaged", file=file, found=found, hint="prepare the data again") from None


def column(batch: pa.RecordBatch, name: str) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """One column of a record batch: its values (int32 [tokens]) and offsets (int64 [rows + 1])."""
    lists = batch.column(name)
    offsets = lists.offsets.to_numpy().astype(np.int64)
    return lists.values.to_numpy(), offsets
