"""How many rows are trained on."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from data import open_rows
from setup import Place
from train import make_batches

from common.errors import UserError


def test_max_rows_caps_the_rows(run: Path, config: dict[str, Any]) -> None:
    """The vendor's converter always stops after 20,001 rows; here it is a choice, and an epoch ends with the cap."""
    everything = open_rows(run / "data" / "train", None)
    assert len(everything) == 96
    mine = copy.deepcopy(config)
    mine["data"]["max_rows"] = 10
    batches = make_batches(mine, Place(data_rank=0, data_size=1, counts=True))
    assert len(batches.rows) == 10
    assert batches.global_batch_size == 4 and batches.steps(1) == 3
    seen = {batches.row_of(index) for index in range(10)}
    assert seen == set(range(10))  # all of them in the first epoch
    assert all((batches.rows[n]["input_ids"] == everything[n]["input_ids"]).all() for n in range(10))


def test_a_cap_above_the_rows_keeps_them_all(run: Path) -> None:
    assert len(open_rows(run / "data" / "train", 20_001)) == 96


@pytest.mark.parametrize("cap", [0, -1])
def test_a_cap_that_leaves_no_row_is_an_error(cap: int, run: Path) -> None:
    with pytest.raises(UserError, match="max_rows leaves no row"):
        open_rows(run / "data" / "train", cap)


def test_the_rows_are_counted_in_the_report(run: Path) -> None:
    assert json.loads((run / "speed.json").read_text())["rows"] == 96
    assert "draws from 96 rows" in (run / "report.md").read_text()
