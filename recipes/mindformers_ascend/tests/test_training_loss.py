"""The loss that training reports is the next-token loss of its rows, over the rows of all processes."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import RECIPE, nll, nothing_left_in, run_sh

from common.data import mindrecord
from common.weights.source import open_source

ROWS, LENGTH = 8, 256


def test_first_loss_equals_the_rows_scored_one_by_one(tmp_path: Path) -> None:
    """Catches labels shifted twice or not at all, padding or prompts that count, ranks averaged without weights.

    The data fill exactly the one step, with answers of very different length, so it is on all of them before
    any update, whatever their order. Two processes, then one, each as --dry-run prints it, pasted into a shell.
    """
    data, two, one = tmp_path / "data.json", tmp_path / "two 和", tmp_path / "one"
    # Three long ones: however the rows are shared, two processes have different numbers of trained tokens
    answers = ["It is a river and it runs to the sea. " * 2] * 3 + ["Yes."] * (ROWS - 3)
    rows = [{"instruction": f"Question {n}?", "input": "", "output": answer} for n, answer in enumerate(answers)]
    data.write_text(json.dumps(rows))
    paste(dry_run(two, data, 2).split("\n# export\n")[0], tmp_path / "elsewhere")  # weights, data, train
    for name in ("weights", "data"):
        shutil.copytree(two / name, one / name)
    before, _, after = dry_run(one, data, 1).partition("\n# weights\n")
    training = after.partition("\n# train\n")[2].partition("\n# export\n")[0]
    paste(f"{before}\n{training}", tmp_path / "elsewhere")

    meta = json.loads((two / "data" / "meta.json").read_text())
    source = open_source(two / "weights")
    scored = [
        nll(source, ids, labels)
        for batch in mindrecord.padded(two / "data" / "train", LENGTH + 1, meta["pad_id"])
        for ids, labels in zip(*batch, strict=True)
    ]
    assert len(scored) == ROWS and max(count for _, count in scored) > 5 * min(count for _, count in scored)
    expected = sum(total for total, _ in scored) / sum(count for _, count in scored)
    for run in (two, one):
        reported = json.loads((run / "metrics.jsonl").read_text())
        assert reported["loss"] == pytest.approx(expected, abs=1e-5), run.name
        assert reported["tokens"] == meta["train"]["tokens"]


def dry_run(output: Path, data: Path, processes: int) -> str:
    """What --dry-run prints, which writes nothing."""
    options = ["--data", data, "--set", f"data.eval={RECIPE}/samples/eval.json", "--nproc-per-node", processes]
    options += ["--set", "train.max_steps=1", "--set", f"train.micro_batch_size={ROWS // processes}"]
    there = output.exists()
    shown = run_sh("--output", output, "--dry-run", *options)
    assert shown.returncode == 0, shown.stderr
    assert output.exists() is there
    return shown.stdout


def paste(script: str, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["bash"], input=script, capture_output=True, text=True, cwd=folder, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    nothing_left_in(folder)
