"""Data preparation against what people use today: `python -m tools.bench.data --tokenizer tokenizer.model`.

Every run is a process of its own, timed from start to end with its imports; the baselines are timed
without theirs. All run one after the other in the same minutes, ours between the baselines.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from common.cli import call
from common.errors import RunError
from common.files import write_json
from common.tokenizer import write_hugging_face
from tools.bench import data_corpus

ROOT = Path(__file__).parents[2]

PREPARE, VICUNA = "prepare, 2 workers", "prepare, vicuna, 2 workers"
MAP = "datasets.map, 2 processes"
LOOP = "loop, transformers' tokenizer"
MINDFORMERS = "loop, MindFormers' preprocessor"

# Of so many times the conversations a second worker's gain is measured, for the start is one worker's in any case.
MANY = 4

# What over what, and how many times it should be at least
RATIOS = (
    (PREPARE, MAP, 10),
    (VICUNA, MINDFORMERS, 50),
    (VICUNA, LOOP, None),
    (PREPARE, "prepare, 1 worker", None),
    ("one by one, 2 workers", "one by one, 1 worker", 1.6),
    ("convert, 2 workers", "convert, 1 worker", 1.6),
)


def tree_memory(process: int) -> int:
    """The proportional memory (PSS) of a process and its children, in bytes; 0 where the system does not tell.

    With what blocks are handed over in: files in memory, which no process maps.
    """
    total = 0
    with contextlib.suppress(OSError):
        files = [file for file in Path(f"/proc/{process}/fd").iterdir() if str(file.readlink()).startswith("/memfd:")]
        total += sum(file.stat().st_blocks * 512 for file in files)
    waiting = [process]
    while waiting:
        each = waiting.pop()
        try:
            lines = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
            for task in Path(f"/proc/{each}/task").iterdir():
                waiting += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue
    return total


def run(command: list[str]) -> dict[str, Any]:
    """Run a command; its output, wall and CPU seconds, and the peak memory of its process tree."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    peak = 0
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.5):  # often enough, and not itself what is measured
            peak = max(peak, tree_memory(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    output, errors = process.communicate()
    seconds = time.perf_counter() - started
    done.set()
    watcher.join()
    if process.returncode:
        raise RunError("a benchmark's process failed", found=errors[-600:])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"output": output, "seconds": seconds, "cpu_seconds": cpu, "peak_bytes": peak}


def ours(source: Path, tokenizer: Path, out: Path, template: str, workers: int, *more: str) -> dict[str, Any]:
    """Prepare `source`, packed, and say how long it took."""
    shutil.rmtree(out, ignore_errors=True)
    options = ["--template", template, "--max-length", "2048", "--packing", "bfd", "--workers", str(workers), *more]
    command = [sys.executable, "-m", "common.data", "prepare", "--input", str(source), "--output", str(out)]
    made = run([*command, "--tokenizer", str(tokenizer), *options])
    counts = json.loads((out / "meta.json").read_text(encoding="utf-8"))["train"]
    shutil.rmtree(out)
    return {**made, "rows": counts["records"], "tokens": counts["tokens"]}


def converted(source: Path, out: Path, rows: int, workers: int) -> dict[str, Any]:
    """Convert `source` to conversations of ShareGPT's form; no tokens are made."""
    command = [sys.executable, "-m", "common.data", "convert", "--input", str(source), "--output", str(out)]
    made = run([*command, "--format", "conversation", "--workers", str(workers)])
    out.unlink()
    return {**made, "rows": rows, "tokens": 0}


def mindrecord(python: str, rows: int) -> float:
    """How many times faster MindSpore writes a thousand records a call than one."""
    made = run([python, "-m", "tools.bench.data_mindrecord", "--rows", str(rows)])
    return float(made["output"].split()[-1])


def baseline(kind: str, python: str, source: Path, folder: Path, work: Path) -> dict[str, Any]:
    """Run one of the baselines with the Python that has its framework."""
    shutil.rmtree(work, ignore_errors=True)
    made = run([python, "-m", "tools.bench.data_baselines", kind, str(source), str(folder), str(work)])
    shutil.rmtree(work)
    return {**made, **json.loads(made["output"].strip().splitlines()[-1])}


def main(
    tokenizer: Annotated[Path, typer.Option(help="Llama 3's tokenizer.model", envvar="LLAMA3_TOKENIZER")],
    rows: Annotated[int, typer.Option(help="conversations to prepare")] = 200_000,
    baseline_python: Annotated[str, typer.Option(help="a Python with transformers and datasets")] = sys.executable,
    mindformers_python: Annotated[
        str | None, typer.Option(help="a Python with mindformers; without it that loop is left out")
    ] = None,
    repeats: Annotated[int, typer.Option(help="rounds of all of them")] = 1,
    growth: Annotated[bool, typer.Option(help="ours alone, from 10,000 to 1,000,000 conversations")] = False,
    plot: Annotated[Path | None, typer.Option(help="with --growth: the figure to write")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="the figures as JSON")] = None,
) -> None:
    """Print a table of the ratios."""
    with tempfile.TemporaryDirectory(prefix="bench-data-") as name:
        work = Path(name)
        made = (
            _growth(work, tokenizer)
            if growth
            else _compare(work, tokenizer, rows, baseline_python, mindformers_python, repeats)
        )
    for entry in made:
        entry.pop("output", None)
    if json_file is not None:
        write_json(json_file, made)
    if growth and plot is not None:
        _plot(made, plot)


def _compare(
    work: Path, tokenizer: Path, rows: int, python: str, mindformers: str | None, repeats: int
) -> list[dict[str, Any]]:
    names = ("all.jsonl", "few.jsonl", "many.jsonl", "broken.jsonl", "tokenizer")
    source, few, many, broken, folder = (work / name for name in names)
    data_corpus.write(many, MANY * rows, tokenizer)
    with open(many, "rb") as lines, open(source, "wb") as some, open(few, "wb") as first, open(broken, "wb") as out:
        for number, line in enumerate(lines):
            if number < max(rows // 20, 1):
                first.write(line)
            if number < rows:
                some.write(line)
            # A malformed record in every block: all of them are read one record at a time
            out.write(b'{"messages": []}\n' if number % 1000 == 500 else line)
    size = source.stat().st_size
    os.sync()  # else the first to be measured waits for the disk
    write_hugging_face(
        tokenizer, folder, eos_token="<|end_of_text|>", pad_token="<|finetune_right_pad_id|>", chat_template=None
    )
    skip = ("--on-error", "skip")
    turns: dict[str, Callable[[], dict[str, Any]]] = {
        PREPARE: lambda: ours(source, tokenizer, work / "out", "llama3", 2),
        MAP: lambda: baseline("map", python, source, folder, work / "map"),
        "prepare, 1 worker": lambda: ours(source, tokenizer, work / "out", "llama3", 1),
        LOOP: lambda: baseline("loop", python, few, folder, work / "loop"),
        VICUNA: lambda: ours(source, tokenizer, work / "out", "vicuna", 2),
        "one by one, 1 worker": lambda: ours(broken, tokenizer, work / "out", "llama3", 1, *skip),
        "one by one, 2 workers": lambda: ours(broken, tokenizer, work / "out", "llama3", 2, *skip),
        "convert, 1 worker": lambda: converted(many, work / "out.json", MANY * rows, 1),
        "convert, 2 workers": lambda: converted(many, work / "out.json", MANY * rows, 2),
    }
    if mindformers is not None:
        turns[MINDFORMERS] = partial(baseline, "mindformers", mindformers, few, folder, work / "loop")
    made = [{"what": what, "round": n, **measure()} for n in range(repeats) for what, measure in turns.items()]
    table = Table(title=f"{rows:,} conversations, {size / 1e6:.0f} MB, Llama 3's vocabulary")
    for heading in ("", "rows/s", "tokens/s", "seconds", "CPU s", "peak MB"):
        table.add_column(heading, justify="right" if heading else "left")
    for entry in made:
        entry["rate"] = entry["rows"] / entry["seconds"]
        figures = (entry["rate"], entry["tokens"] / entry["seconds"])
        table.add_row(
            entry["what"],
            *(f"{figure:,.0f}" for figure in figures),
            f"{entry['seconds']:.1f}",
            f"{entry['cpu_seconds']:.1f}",
            f"{entry['peak_bytes'] / 1e6:.0f}",
        )
    Console().print(table)
    ratios = [(a, b, asked, _ratio(made, a, b)) for a, b, asked in RATIOS if a in turns and b in turns]
    if mindformers is not None:
        ratios.append(
            ("MindRecord, 1000 records a call", "one a call", 2, mindrecord(mindformers, max(rows // 20, 1000)))
        )
    table = Table(title="In rows a second, medians of the rounds")
    for heading in ("", "over", "times", "at least"):
        table.add_column(heading, justify="right" if heading in ("times", "at least") else "left")
    for one, other, asked, times in ratios:
        table.add_row(one, other, f"{times:.2f}", f"{asked:g}" if asked else "")
        made.append({"what": one, "over": other, "times": times})
    Console().print(table)
    return made


def _ratio(made: list[dict[str, Any]], one: str, other: str) -> float:
    """The median over the rounds of how many times faster one is than the other."""
    rates = {(entry["what"], entry["round"]): entry["rate"] for entry in made}
    rounds = {number for _, number in rates}
    return float(np.median([rates[one, number] / rates[other, number] for number in rounds]))


def _growth(work: Path, tokenizer: Path) -> list[dict[str, Any]]:
    made = []
    table = Table(title="prepare, 2 workers")
    for heading in ("rows", "MB", "seconds", "CPU s", "tokens/s", "peak MB"):
        table.add_column(heading, justify="right")
    for rows in (10_000, 30_000, 100_000, 300_000, 1_000_000):
        source = work / "conversations.jsonl"
        size = data_corpus.write(source, rows, tokenizer)
        entry = {**ours(source, tokenizer, work / "out", "llama3", 2), "bytes": size}
        made.append(entry)
        table.add_row(
            f"{rows:,}",
            f"{size / 1e6:.0f}",
            f"{entry['seconds']:.1f}",
            f"{entry['cpu_seconds']:.1f}",
            f"{entry['tokens'] / entry['seconds']:,.0f}",
            f"{entry['peak_bytes'] / 1e6:.0f}",
        )
    Console().print(table)
    return made


def _plot(made: list[dict[str, Any]], file: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.loglog([entry["rows"] for entry in made], [entry["seconds"] for entry in made], "o-", label="wall")
    axes.loglog([entry["rows"] for entry in made], [entry["cpu_seconds"] for entry in made], "s--", label="CPU")
    axes.set_xlabel("conversations")
    axes.set_ylabel("seconds")
    axes.legend()
    axes.grid(True, which="both", alpha=0.3)
    figure.savefig(file)


if __name__ == "__main__":
    raise SystemExit(call(lambda: typer.run(main)))
