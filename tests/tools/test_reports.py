"""tools report: one run as its report, several as columns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from example_project import ROOT, tools

from common import golden
from common import plan as plans
from common.errors import UserError
from common.run import state
from tools import reports

RECIPE = ROOT / "recipes" / "fsdp_qlora_70b"


def made(folder: Path, first_loss: float) -> Path:
    planned = plans.make(plans.Request(recipe=RECIPE, output=folder))
    folder.mkdir(parents=True)
    state.save_plan(planned, {"machine": {"cpu": "Example"}, "commit": "c0ffee", "versions": {}})
    rows = [
        {"step": step, "loss": first_loss - step, "learning_rate": 1e-3, "grad_norm": 1.0, "tokens": 100}
        | {"padded_tokens": 128, "seconds": 0.5, "memory_bytes": 2**30}
        for step in (1, 2, 3)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_several_runs_are_columns(tmp_path: Path) -> None:
    runs = [made(tmp_path / "a", 9.0), made(tmp_path / "b", 7.0)]
    ran = tools(ROOT, "report", *map(str, runs))
    assert ran.returncode == 0, ran.stderr
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in ran.stdout.splitlines()]
    rows = {name: cells for name, *cells in lines}
    assert rows["Loss, first step"] == ["8.0000", "6.0000"]
    assert rows["Loss, last step"] == ["6.0000", "4.0000"]
    assert rows["Run"] == [str(run) for run in runs]
    assert rows["Peak memory of a process"] == ["1.00 GiB", "1.00 GiB"]


def test_one_run_is_its_report_and_nothing_is_written(tmp_path: Path) -> None:
    run = made(tmp_path / "a", 9.0)
    golden.record(run, golden.compare("lora", golden.read().curves["lora"]), {"trl": "1"})
    before = sorted(path.name for path in run.iterdir())
    ran = tools(ROOT, "report", str(run))
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("# ") and "The losses are on the reference curve" in ran.stdout
    assert sorted(path.name for path in run.iterdir()) == before
    assert json.loads(tools(ROOT, "report", str(run), "--json").stdout)[0]["training"]["last_loss"] == 6.0


def test_what_is_no_run_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no run directory"):
        reports.find(str(tmp_path))
