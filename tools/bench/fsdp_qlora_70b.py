"""Speed and memory of fsdp_qlora_70b: a warm smoke run, the training step, and loading a 1B model.

python -m tools.bench.fsdp_qlora_70b [--json FILE] [--only run|step|load]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from common import metrics, plan
from common.cli import call
from common.environment import ROOT
from common.errors import RunError
from common.request import Request
from common.weights import tiny

RECIPE = ROOT / "recipes" / "fsdp_qlora_70b"
PAIRS = 5
WARM_UP_STEPS = 4


def run_sh(*arguments: str) -> float:
    """Seconds of one call of run.sh."""
    started = time.perf_counter()
    done = subprocess.run(["bash", str(RECIPE / "run.sh"), *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RunError("run.sh failed", found=done.stderr[-500:])
    return time.perf_counter() - started


def warm_run(folder: Path) -> list[dict[str, Any]]:
    """Wall-clock seconds of what a person types, each the median of three but the run itself."""
    output = ["--output", str(folder / "warm")]
    rows = [{"what": "run.sh, smoke, warm", "seconds": run_sh(*output), "at most": 60}]
    for what, arguments, limit in (
        ("run.sh again, nothing to do", output, 2),
        ("run.sh --dry-run", ["--dry-run"], 1),
        ("run.sh --help", ["--help"], 1),
    ):
        rows.append(
            {"what": what, "seconds": statistics.median(run_sh(*arguments) for _ in range(3)), "at most": limit}
        )
    return rows


def launch(python: Path, script: str, *arguments: str) -> None:
    words = [str(python), "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(RECIPE / script)]
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run([*words, *arguments], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RunError(f"{script} {arguments[0]} failed", found=(done.stdout + done.stderr)[-2000:])


def steps(folder: Path, python: Path) -> list[dict[str, Any]]:
    """The training step of train.py over a bare trl loop's, interleaved pairs on the same rows and settings."""
    output = folder / "steps"
    for stage in ("weights", "data", "train"):
        run_sh("--output", str(output), "--only", stage)
    config = output / "train" / "config.yaml"
    ratios = []
    for _ in range(PAIRS):
        launch(python, "stock.py", "train", "--config", str(config), "--output", str(folder / "bare.json"))
        bare = json.loads((folder / "bare.json").read_text())["seconds"]
        for old in (output / "checkpoints").glob("checkpoint-*"):
            (old / "complete.json").unlink()
        launch(python, "train.py", "--config", str(config))
        ours = [row["seconds"] for row in metrics.read(output / "metrics.jsonl")]
        ratios.append(statistics.median(ours[WARM_UP_STEPS:]) / statistics.median(bare[WARM_UP_STEPS:]))
    return [
        {"what": "training step, ours / bare trl", "ratio": statistics.median(ratios), "at most": 1.05, "all": ratios}
    ]


def loading(folder: Path, python: Path) -> list[dict[str, Any]]:
    """Peak memory and seconds of loading 1B in NF4 on two ranks, layer by layer and by from_pretrained."""
    tiny.make(folder / "1b", hidden=2048, layers=16, heads=32, kv_heads=8, ffn=8192)  # Llama 3.2 1B, untied
    planned = plan.make(Request(recipe=RECIPE, output=folder / "unused"))
    config = {**planned.config, "model": {**planned.config["model"], "path": str(folder / "1b")}}
    (folder / "load.yaml").write_text(yaml.safe_dump(config))
    found = {}
    for work in ("load", "ours"):
        launch(
            python, "stock.py", work, "--config", str(folder / "load.yaml"), "--output", str(folder / f"{work}.json")
        )
        found[work] = json.loads((folder / f"{work}.json").read_text())
    memory = found["ours"]["peak_bytes"] / found["load"]["peak_bytes"]
    seconds = found["ours"]["seconds"] / found["load"]["seconds"]
    return [
        {
            "what": "loading 1B, peak memory of a rank, ours / from_pretrained",
            "ratio": memory,
            "at most": 0.5,
            "all": found,
        },
        {"what": "loading 1B, seconds, ours / from_pretrained", "ratio": seconds},
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", choices=("run", "step", "load"))
    arguments = parser.parse_args()
    python = plan.make(Request(recipe=RECIPE)).spec.python()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.only in (None, "run"):
            rows += warm_run(folder)
        if arguments.only in (None, "step"):
            rows += steps(folder, python)
        if arguments.only in (None, "load"):
            rows += loading(folder, python)
    table = Table("fsdp_qlora_70b", "measured", "at most")
    for row in rows:
        value = f"{row['seconds']:.2f} s" if "seconds" in row else f"{row['ratio']:.3f}"
        table.add_row(row["what"], value, str(row.get("at most", "")))
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(call(main))
