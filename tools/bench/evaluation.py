"""Speed of evaluation: seconds of scoring, and answers in batches against one prompt at a time.

python -m tools.bench.evaluation --torch-python PYTHON [--json FILE]
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from common.cli import call
from common.environment import ROOT
from common.errors import RunError
from common.files import write_json
from common.weights import tiny

PAIRS = 2067  # paragraphs of SQuAD's dev-v1.1, which the contest's reading test has one question of each
REPEATS = 3
WORDS = [f"word{number}" for number in range(2000)]


def answers(file: Path) -> None:
    """Answers of one to twelve words and their labels, some of them equal."""
    numbers = random.Random(1)
    with open(file, "w", encoding="utf-8") as out:
        for _ in range(PAIRS):
            label = numbers.sample(WORDS, numbers.randint(1, 12))
            said = label if numbers.random() < 0.4 else [numbers.choice(WORDS), *label[1:]]
            out.write(json.dumps({"prediction": " ".join(said), "label": " ".join(label)}) + "\n")


def problems(file: Path) -> None:
    """Sums, each answered in a short working."""
    numbers = random.Random(2)
    with open(file, "w", encoding="utf-8") as out:
        for _ in range(PAIRS):
            a, b = numbers.randint(-999_999, 999_999) / 100, numbers.randint(-999_999, 999_999) / 100
            row = {
                "problem": f"计算 {a:.2f} + {b:.2f} 等于多少？",
                "solution": f"{a:.2f} + {b:.2f} = {a + b:.2f}",
                "prediction": f"先算整数部分，再算小数部分。\n{a:.2f} + {b:.2f} = {a + b:.2f}\n答案是 {a + b:.2f}。",
            }
            out.write(json.dumps(row, ensure_ascii=False) + "\n")


def timed(*arguments: str) -> float:
    """Seconds of one command from start to end, the median of REPEATS."""
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "common.evaluation", *arguments], capture_output=True, text=True)
        seconds.append(time.perf_counter() - started)
        if done.returncode:
            raise RunError("scoring failed", found=done.stderr[-500:])
    return statistics.median(seconds)


def generation(python: str, work: Path) -> dict[str, Any]:
    """Answers a second of a small model: in batches, and one prompt at a time."""
    tiny.make(work / "model", hidden=128, layers=4, heads=4, kv_heads=2, ffn=344, dtype="fp32")
    command = [python, str(Path(__file__).with_name("evaluation_generation.py")), str(work / "model")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={"PYTHONPATH": str(ROOT)})
    if done.returncode:
        raise RunError("generating failed", found=(done.stdout + done.stderr)[-1000:])
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def main(
    torch_python: Annotated[str, typer.Option(help="a Python with torch and transformers")],
    json_file: Annotated[Path | None, typer.Option("--json", help="the figures as JSON")] = None,
) -> None:
    """Print a table of the figures."""
    with tempfile.TemporaryDirectory(prefix="bench-evaluation-") as name:
        work = Path(name)
        said, solved = work / "answers.jsonl", work / "problems.jsonl"
        answers(said)
        problems(solved)
        rows: list[dict[str, Any]] = [
            {"what": what, "seconds": timed(*arguments), "limit": "at most 3"}
            for what, arguments in (
                (f"squad --metric emf1, {PAIRS:,} answers", ("squad", "--metric", "emf1", "--predictions", str(said))),
                (f"squad --metric official, {PAIRS:,} answers", ("squad", "--predictions", str(said))),
                (f"math, {PAIRS:,} answers", ("math", "--predictions", str(solved))),
            )
        ]
        found = generation(torch_python, work)
        what = f"{found['prompts']} answers in batches of {found['batch_size']} over one at a time"
        rows.append({"what": what, "ratio": found["ratio"], "limit": "at least 3", "all": found})
    table = Table("Evaluation", "Measured", "Asked")
    for row in rows:
        measured = f"{row['seconds']:.2f} s" if "seconds" in row else f"{row['ratio']:.2f}"
        table.add_row(row["what"], measured, row["limit"])
    Console().print(table)
    if json_file is not None:
        write_json(json_file, rows)


if __name__ == "__main__":
    raise SystemExit(call(lambda: typer.run(main)))
