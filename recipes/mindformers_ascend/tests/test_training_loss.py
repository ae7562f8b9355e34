"""The loss that training reports is the next-token loss of its rows, over the rows of all processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import RECIPE, nll, run_sh

from common.data import mindrecord
from common.weights.source import open_source

ROWS, LENGTH = 8, 256


@pytest.mark.parametrize("processes", [1, 2])
def test_first_loss_equals_the_rows_scored_one_by_one(tmp_path: Path, processes: int) -> None:
    """Catches labels shifted twice or not at all, padding or prompts that count, ranks averaged without weights.

    The data fill exactly the one step, with answers of very different length, so it is on all of them before
    any update, whatever their order.
    """
    data = tmp_path / "data.json"
    # Three long ones: however the rows are shared, two processes have different numbers of trained tokens
    answers = ["It is a river and it runs to the sea. " * 2] * 3 + ["Yes."] * (ROWS - 3)
    rows = [{"instruction": f"Question {n}?", "input": "", "output": answer} for n, answer in enumerate(answers)]
    data.write_text(json.dumps(rows))
    options = ["--output", tmp_path / "run", "--data", data, "--set", f"data.eval={RECIPE}/samples/eval.json"]
    options += ["--set", "train.max_steps=1", "--nproc-per-node", processes]
    options += ["--set", f"train.micro_batch_size={ROWS // processes}"]
    for stage in ("weights", "data", "train"):
        done = run_sh(*options, "--only", stage, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
    run = tmp_path / "run"
    pad = json.loads((run / "data" / "meta.json").read_text())["pad_id"]
    source = open_source(run / "weights")
    scored = [
        nll(source, ids, labels)
        for batch in mindrecord.padded(run / "data" / "train", LENGTH + 1, pad)
        for ids, labels in zip(*batch, strict=True)
    ]
    assert len(scored) == ROWS and max(count for _, count in scored) > 5 * min(count for _, count in scored)
    expected = sum(total for total, _ in scored) / sum(count for _, count in scored)
    reported = json.loads((run / "metrics.jsonl").read_text())
    assert reported["loss"] == pytest.approx(expected, abs=1e-5)
    assert reported["tokens"] == json.loads((run / "data" / "meta.json").read_text())["train"]["tokens"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.json", "run"], "something was left behind"
