"""MindRecord: rows of one length, and what the real MindSpore reads back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from data_support import CONVERSATIONS, IGNORE, as_messages, problem, rows, run, write_jsonl

from common.data import mindrecord

PAD = 1026


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    run(write_jsonl(tmp_path / "a.jsonl", [as_messages(c) for c in CONVERSATIONS] * 400), tmp_path / "data")
    return tmp_path / "data"


def test_rows_are_padded_and_padding_is_not_trained(prepared: Path) -> None:
    longest = max(len(row["input_ids"]) for row in rows(prepared))
    parts = list(mindrecord.padded(prepared, longest + 1, PAD))
    ids, labels = (np.concatenate(side) for side in zip(*parts, strict=True))
    assert ids.dtype == labels.dtype == np.int32 and ids.shape == labels.shape == (1600, longest + 1)
    for row, made, answers in zip(rows(prepared), ids.tolist(), labels.tolist(), strict=True):
        size = len(row["input_ids"])
        assert made == row["input_ids"] + [PAD] * (longest + 1 - size)
        assert answers == row["labels"] + [IGNORE] * (longest + 1 - size)


def test_a_row_that_does_not_fit_is_refused(prepared: Path) -> None:
    assert "--max-length 8" in str(problem(lambda: list(mindrecord.padded(prepared, 8, PAD))))


def test_mindspore_reads_what_was_written(prepared: Path, tmp_path: Path) -> None:
    dataset = pytest.importorskip("mindspore.dataset", reason="mindspore is not installed here")
    longest = max(len(row["input_ids"]) for row in rows(prepared))
    file = tmp_path / "out" / "train.mindrecord"
    assert mindrecord.write(prepared, file, length=longest, pad=PAD) == 1600
    assert sorted(path.name for path in file.parent.iterdir()) == ["train.mindrecord", "train.mindrecord.db"]
    found = dataset.MindDataset(str(file), shuffle=False).create_dict_iterator(output_numpy=True, num_epochs=1)
    expected = rows(prepared)
    count = 0
    for record, row in zip(found, expected, strict=True):
        count += 1
        size = len(row["input_ids"])
        assert record["input_ids"].dtype == np.int32 and record["labels"].dtype == np.int32
        assert record["input_ids"].tolist() == row["input_ids"] + [PAD] * (longest - size)
        assert record["labels"].tolist() == row["labels"] + [IGNORE] * (longest - size)
    assert count == 1600
    assert "exists" in str(problem(lambda: mindrecord.write(prepared, file, length=longest, pad=PAD)))


def test_without_mindspore_it_says_where_to_run(prepared: Path, tmp_path: Path) -> None:
    try:
        import mindspore  # noqa: F401
    except ImportError:
        said = str(problem(lambda: mindrecord.write(prepared, tmp_path / "x", length=512, pad=PAD)))
        assert "mindspore cannot be imported" in said and not (tmp_path / "x").exists()
        assert json.loads((prepared / "meta.json").read_text())["template"] == "llama3"
    else:
        pytest.skip("mindspore is installed here")
