"""Prepared data as MindRecord, written by MindSpore itself: `python -m common.data.mindrecord DATA FILE`.

This runs in a MindSpore environment: it needs numpy, pyarrow and mindspore, and nothing of the light one.
"""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from common.cli import call
from common.errors import UserError
from common.files import remove

IGNORE = -100
_SCHEMA = {"input_ids": {"type": "int32", "shape": [-1]}, "labels": {"type": "int32", "shape": [-1]}}
_RECORDS_A_CALL = 1000  # one record a call takes twice as long


def padded(folder: Path, length: int, pad: int) -> Iterator[tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]]:
    """Rows of exactly `length` ids and labels (int32 [rows, length]), batch by batch: padded, labels with -100.

    `length` is the model's sequence length plus one, because the model shifts. Raises UserError for a
    row that is longer: it would lose its end here.
    """
    from common.data import stored

    for batch in stored.batches(folder):
        ids, offsets = stored.column(batch, "input_ids")
        labels, _ = stored.column(batch, "labels")
        lengths = np.diff(offsets)
        if lengths.max(initial=0) > length:
            found = f"a row of {lengths.max()} tokens"
            hint = f"prepare the data with --max-length {length}"
            raise UserError("a row does not fit", file=folder, found=found, expected=f"at most {length}", hint=hint)
        inside = np.arange(length) < lengths[:, None]
        made = np.full((len(lengths), length), pad, dtype=np.int32)
        answers = np.full((len(lengths), length), IGNORE, dtype=np.int32)
        made[inside] = ids[offsets[0] : offsets[-1]]
        answers[inside] = labels[offsets[0] : offsets[-1]]
        yield made, answers


def write(folder: Path, output: Path, *, length: int, pad: int) -> int:
    """Write the prepared data in `folder` to the MindRecord file `output`; returns the number of records.

    Raises UserError where mindspore is missing or the output exists.
    """
    try:
        mindrecord: Any = importlib.import_module("mindspore.mindrecord")
    except ImportError as error:
        hint = "run this in the environment of a MindSpore recipe"
        raise UserError("mindspore cannot be imported", found=str(error), hint=hint) from None
    index = output.with_name(output.name + ".db")
    for path in (output, index):
        if path.exists():
            raise UserError("the output exists", file=path, hint="remove it, or choose another output")
    output.parent.mkdir(parents=True, exist_ok=True)
    # The index names the file it belongs to, so both are written under their own names in a folder of their own.
    partial = output.with_name(output.name + ".partial")
    remove(partial)
    partial.mkdir()
    try:
        count = _write(mindrecord, folder, partial / output.name, length, pad)
        (partial / index.name).replace(index)
        (partial / output.name).replace(output)
    finally:
        remove(partial)
    return count


def _write(mindrecord: Any, folder: Path, file: Path, length: int, pad: int) -> int:
    writer = mindrecord.FileWriter(str(file), shard_num=1)
    writer.add_schema(_SCHEMA, "token rows")
    count = 0
    waiting: list[dict[str, npt.NDArray[np.int32]]] = []
    for ids, labels in padded(folder, length, pad):
        waiting.extend({"input_ids": a, "labels": b} for a, b in zip(ids, labels, strict=True))
        while len(waiting) >= _RECORDS_A_CALL:
            writer.write_raw_data(waiting[:_RECORDS_A_CALL])
            del waiting[:_RECORDS_A_CALL]
            count += _RECORDS_A_CALL
    if waiting:
        writer.write_raw_data(waiting)
    writer.commit()
    return count + len(waiting)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m common.data.mindrecord", description="Prepared data as MindRecord")
    parser.add_argument("data", type=Path, help="a folder that `python -m common.data prepare` wrote")
    parser.add_argument("output", type=Path, help="the file to write")
    parser.add_argument("--length", type=int, help="ids a record; by default the --max-length of the data")
    parser.add_argument("--seq-length", type=int, help="the model's, which shifts: a record has one id more")
    parser.add_argument("--pad", type=int, help="the id that fills short rows; by default that of the data")
    arguments = parser.parse_args()
    from common.data import stored

    meta = stored.read_meta(arguments.data)
    if arguments.length and arguments.seq_length:
        raise UserError("--length and --seq-length say the same", expected="one of them")
    length = arguments.seq_length + 1 if arguments.seq_length else arguments.length or int(meta["max_length"])
    pad = int(meta["pad_id"]) if arguments.pad is None else arguments.pad
    if not 0 <= pad < int(meta["vocabulary_size"]):
        raise UserError("--pad is outside the vocabulary", found=pad, expected=f"below {meta['vocabulary_size']}")
    count = write(arguments.data, arguments.output, length=length, pad=pad)
    print(json.dumps({"records": count, "length": length, "output": str(arguments.output)}))


if __name__ == "__main__":
    raise SystemExit(call(main))
