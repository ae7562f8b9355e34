"""MindRecord, a thousand records a call against one: `python -m tools.bench.data_mindrecord` where mindspore is."""

from __future__ import annotations

import argparse
import importlib
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from common.data import mindrecord
from common.errors import UserError
from common.files import write_json

LENGTH = 2049


def seconds(module: Any, file: Path, rows: int, records_a_call: int) -> float:
    """How long writing `rows` records takes, opening and committing included."""
    random = np.random.default_rng(0)
    block = random.integers(0, 128_000, (1000, LENGTH), dtype=np.int32)
    started = time.perf_counter()
    writer = module.FileWriter(str(file), shard_num=1)
    writer.add_schema(mindrecord._SCHEMA, "token rows")
    for start in range(0, rows, records_a_call):
        picked = [(start + i) % 1000 for i in range(min(records_a_call, rows - start))]
        writer.write_raw_data([{"input_ids": block[i], "labels": block[i]} for i in picked])
    writer.commit()
    return time.perf_counter() - started


def main() -> None:
    """Print the ratio of the medians of interleaved runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    try:
        module = importlib.import_module("mindspore.mindrecord")
    except ImportError as error:
        raise UserError("mindspore cannot be imported", found=str(error)) from None
    taken: dict[int, list[float]] = {1: [], mindrecord._RECORDS_A_CALL: []}
    with tempfile.TemporaryDirectory(prefix="bench-mindrecord-") as name:
        for number in range(3):
            for count, times in taken.items():
                times.append(seconds(module, Path(name) / f"{count}-{number}.mindrecord", arguments.rows, count))
    one, many = (float(np.median(times)) for times in taken.values())
    print(f"{arguments.rows} records of 2 x {LENGTH} int32: one a call {one:.2f} s, 1000 a call {many:.2f} s")
    print(f"ratio {one / many:.2f}")
    if arguments.json:
        write_json(arguments.json, {"rows": arguments.rows, "one_s": one, "thousand_s": many, "ratio": one / many})


if __name__ == "__main__":
    main()
