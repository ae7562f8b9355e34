"""metrics.jsonl holds each step once, whatever happened while it was written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common import metrics


def row(step: int) -> dict[str, float]:
    return {**dict.fromkeys(metrics.FIELDS, 1.5), "step": step}


def write(path: Path, resume: int, *steps: int) -> None:
    writer = metrics.MetricsWriter(path, resume)
    for step in steps:
        writer.write(row(step))
    writer.close()


def steps(path: Path) -> list[float]:
    return [each["step"] for each in metrics.read(path)]


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    write(tmp_path / "m", 0, 1, 2)
    assert metrics.read(tmp_path / "m") == [row(1), row(2)]


def test_what_came_after_the_checkpoint_is_cut_off(tmp_path: Path) -> None:
    write(tmp_path / "m", 0, 1, 2, 3, 4)
    write(tmp_path / "m", 2, 3)
    assert steps(tmp_path / "m") == [1, 2, 3]


def test_starting_over_starts_empty(tmp_path: Path) -> None:
    write(tmp_path / "m", 0, 1, 2)
    write(tmp_path / "m", 0)
    assert steps(tmp_path / "m") == []


@pytest.mark.parametrize("kept", [1, 10, -1])
def test_a_last_line_that_was_cut_is_left_out_and_what_follows_stands_on_its_own_line(
    tmp_path: Path, kept: int
) -> None:
    path = tmp_path / "m"
    write(path, 0, 1, 2)
    whole = path.read_text()
    last = json.dumps(row(3))
    path.write_text(whole + last[:kept])
    assert steps(path) == [1, 2]
    write(path, 2, 3)
    assert steps(path) == [1, 2, 3]
    assert path.read_text() == whole + last + "\n"


def test_a_row_is_there_for_others_as_soon_as_it_is_written(tmp_path: Path) -> None:
    writer = metrics.MetricsWriter(tmp_path / "m", 0)
    writer.write(row(1))
    assert steps(tmp_path / "m") == [1]
    writer.close()


@pytest.mark.parametrize("change", [{"extra": 1.0}, {"loss": None}])
def test_a_row_with_other_keys_is_refused(tmp_path: Path, change: dict[str, float | None]) -> None:
    wrong = {**row(1), **change}
    if wrong["loss"] is None:
        del wrong["loss"]
    writer = metrics.MetricsWriter(tmp_path / "m", 0)
    with pytest.raises(ValueError, match="keys"):
        writer.write(wrong)  # type: ignore[arg-type]
    writer.close()
    assert (tmp_path / "m").read_text() == ""


def test_no_file_is_no_rows(tmp_path: Path) -> None:
    assert metrics.read(tmp_path / "none") == []
