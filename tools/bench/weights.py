"""Conversion against cp of the same bytes, in one run, interleaved; peak memory; and one core against two.

Run alone on the machine: python tools/bench/weights.py [--json FILE] [--folder DIR] [--pairs N]
Needs about 11 GB of free space for the 3 GB model.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from common.files import write_json
from common.weights import dtypes, hugging_face
from common.weights.config import CONFIG_FILE, LlamaConfig, tensor_shapes, to_hugging_face
from common.weights.dtypes import Array
from common.weights.tensors import Tensor
from common.weights.writing import write_file

# The sizes of Llama 3.2 1B with an lm_head of its own: 1.5 billion parameters, 3.0 GB in bf16.
LARGE = LlamaConfig(2048, 8192, 16, 32, 8, 128256, 64)
SIZES = {
    "0.3 GB": replace(LARGE, hidden_size=1024, intermediate_size=3584, num_attention_heads=16, vocab_size=32000),
    "1 GB": replace(LARGE, num_hidden_layers=7, vocab_size=32000),
    "3 GB": LARGE,
}
SIZES["0.3 GB"] = replace(SIZES["0.3 GB"], num_hidden_layers=6)
DIRECTIONS = ("hf → mindspore", "mindspore → hf", "hf → meta")


class _Random(Tensor):
    """Random bf16 values between 0.008 and 0.03 in size, made block by block."""

    def __init__(self, shape: tuple[int, ...], seed: int) -> None:
        self.dtype, self.shape = dtypes.BF16, shape
        self._random = np.random.default_rng(seed)

    def read(self, start: int, stop: int) -> Array:
        bits = self._random.integers(0, 2**16, (stop - start, *self.shape[1:]), np.uint16)
        return (bits & np.uint16(0x80FF)) | np.uint16(0x3C00)


def make(folder: Path, config: LlamaConfig) -> None:
    """Write a random model of the sizes in `config`."""
    folder.mkdir()
    tensors: dict[str, Tensor] = {
        name: _Random(shape, seed) for seed, (name, shape) in enumerate(tensor_shapes(config).items())
    }
    files, index = hugging_face.plan(tensors)
    for file in files:
        write_file(folder, file, report=lambda _: None)
    if index is not None:
        write_json(folder / hugging_face.INDEX, index)
    write_json(folder / CONFIG_FILE, to_hugging_face(config))


def copy(source: Path, target: Path) -> None:
    """cp, and fsync of what it wrote."""
    subprocess.run(["cp", "-r", str(source), str(target)], check=True)
    for file in target.iterdir():
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def convert(source: Path, target: Path, *options: str) -> float:
    """The conversion as a person runs it; its peak memory in MB (resident pages, mapped files included)."""
    command = [sys.executable, "-m", "common.weights", "convert", str(source), str(target), *options]
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"failed: {' '.join(command)}")
    return usage.ru_maxrss * 1024 / 1e6


def timed(work: Callable[[], Any], target: Path) -> tuple[float, Any]:
    """Seconds of `work`, and what it returns; `target` is removed afterwards."""
    start = time.perf_counter()
    value = work()
    seconds = time.perf_counter() - start
    shutil.rmtree(target)
    return seconds, value


def against_cp(folder: Path, pairs: int) -> list[dict[str, Any]]:
    """Each direction against cp of its source, `pairs` times in turn."""
    hf, mindspore, out = folder / "hf", folder / "mindspore", folder / "out"
    make(hf, LARGE)
    convert(hf, mindspore, "--to", "mindspore")
    cases = [(hf, ("--to", "mindspore")), (mindspore, ("--to", "hf")), (hf, ("--to", "meta"))]
    times: list[tuple[list[float], list[float], list[float]]] = [([], [], []) for _ in cases]
    for _ in range(pairs):
        for (source, options), (copied, converted, memory) in zip(cases, times, strict=True):
            copied.append(timed(partial(copy, source, out), out)[0])
            seconds, peak = timed(partial(convert, source, out, *options), out)
            converted.append(seconds)
            memory.append(peak)
    rows = []
    for name, (copied, converted, memory) in zip(DIRECTIONS, times, strict=True):
        one, other = statistics.median(copied), statistics.median(converted)
        ratio = statistics.median(b / a for a, b in zip(copied, converted, strict=True))
        # Other work on the machine only ever adds time: the best of each is nearest to the machine's own speed.
        best = min(converted) / min(copied)
        row = {"what": name, "cp_s": one, "convert_s": other, "ratio": ratio, "best_ratio": best}
        rows.append({**row, "peak_mb": max(memory)})
    return rows


def memory(folder: Path) -> list[dict[str, Any]]:
    """Peak memory of a dtype change, the costliest kind of conversion, over three sizes."""
    rows = []
    for name, config in SIZES.items():
        source, out = folder / "source", folder / "out"
        make(source, config)
        row: dict[str, Any] = {"what": name}
        for label, options in (
            ("mindspore", ("--to", "mindspore")),
            ("meta", ("--to", "meta")),
            ("fp16", ("--to", "hf", "--dtype", "fp16")),
        ):
            row[label + "_mb"] = timed(partial(convert, source, out, *options), out)[1]
        shutil.rmtree(source)
        rows.append(row)
    return rows


def two_cores(pairs: int) -> dict[str, Any]:
    """bf16 to fp16 of the 1 GB model with one worker and with two, in memory: what is measured is the computing."""
    script = (
        "import sys; from pathlib import Path; from common.weights.convert import Options, convert;"
        "convert(Path(sys.argv[1]), Path(sys.argv[2]), Options('hf', dtype='fp16'), workers=int(sys.argv[3]))"
    )
    memory_folder = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory_folder if memory_folder.is_dir() else None) as name:
        source, out = Path(name) / "source", Path(name) / "out"
        make(source, SIZES["1 GB"])
        seconds: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(pairs):
            for workers, times in seconds.items():
                command = [sys.executable, "-c", script, str(source), str(out), str(workers)]
                times.append(timed(partial(subprocess.run, command, check=True), out)[0])
    one, two = statistics.median(seconds[1]), statistics.median(seconds[2])
    return {"what": "bf16 → fp16, 1 GB", "one_core_s": one, "two_cores_s": two, "speedup": one / two}


def main() -> None:
    """Run everything, print tables, write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--folder", type=Path, help="where the models are written; the system's temporary one")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--only", choices=("cp", "memory", "cores"))
    arguments = parser.parse_args()
    result: dict[str, Any] = {"machine": f"{os.cpu_count()} cores, {platform.platform()}"}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        if arguments.only in (None, "cp"):
            result["against cp, 3 GB"] = against_cp(folder, arguments.pairs)
            for child in folder.iterdir():
                shutil.rmtree(child)
        if arguments.only in (None, "memory"):
            result["peak memory"] = memory(folder)
        if arguments.only in (None, "cores"):
            result["cores"] = [two_cores(arguments.pairs)]
    for title, rows in result.items():
        print(title if isinstance(rows, list) else f"{title}: {rows}")
        for row in rows if isinstance(rows, list) else ():
            print("   " + "  ".join(f"{k} {v:.2f}" if isinstance(v, float) else f"{v:<16}" for k, v in row.items()))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
