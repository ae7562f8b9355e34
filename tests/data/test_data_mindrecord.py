"""MindRecord: rows of one length, and what the real MindSpore reads back."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from data_support import CONVERSATIONS, IGNORE, as_messages, problem, rows, run, write_jsonl

from common import environment, plan, recipe
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


READ = """
import json, sys
from mindspore import dataset
found = dataset.MindDataset(sys.argv[1], shuffle=False).create_dict_iterator(output_numpy=True, num_epochs=1)
for record in found:
    assert str(record["input_ids"].dtype) == str(record["labels"].dtype) == "int32"
    print(json.dumps([record["input_ids"].tolist(), record["labels"].tolist()]))
"""


@pytest.fixture(scope="module")
def mindspore_python() -> str:
    """A Python with mindspore: LLAMA3_MINDSPORE_PYTHON, or of a recipe's environment that is there."""
    if named := os.environ.get("LLAMA3_MINDSPORE_PYTHON"):
        return named
    folder = recipe.find("mindformers_ascend")
    spec = plan.environment_spec(folder, recipe.read(folder)[0], "cpu")
    if not spec.complete():
        pytest.skip("no environment with mindspore: run mindformers_ascend once, or set LLAMA3_MINDSPORE_PYTHON")
    return str(spec.python())


def called(python: str, *words: object) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": str(environment.ROOT)}
    return subprocess.run([python, *map(str, words)], capture_output=True, text=True, env=variables, timeout=300)


def test_mindspore_reads_what_was_written(prepared: Path, tmp_path: Path, mindspore_python: str) -> None:
    longest = max(len(row["input_ids"]) for row in rows(prepared))
    file = tmp_path / "out" / "train.mindrecord"
    # The model's sequence length: a record has one id more. The pad id is that of the data
    write = ("-m", "common.data.mindrecord", prepared, file, "--seq-length", longest - 1)
    done = called(mindspore_python, *write)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["records"] == 1600
    assert sorted(path.name for path in file.parent.iterdir()) == ["train.mindrecord", "train.mindrecord.db"]
    read = called(mindspore_python, "-c", READ, file)
    assert read.returncode == 0, read.stderr
    pad = json.loads((prepared / "meta.json").read_text())["pad_id"]
    expected = rows(prepared)
    found = [json.loads(line) for line in read.stdout.splitlines() if line.startswith("[[")]
    assert len(found) == len(expected) == 1600
    for (ids, labels), row in zip(found, expected, strict=True):
        size = len(row["input_ids"])
        assert ids == row["input_ids"] + [pad] * (longest - size)
        assert labels == row["labels"] + [IGNORE] * (longest - size)
    again = called(mindspore_python, *write)
    assert again.returncode == 2 and "the output exists" in again.stderr


def test_without_mindspore_it_says_where_to_run(prepared: Path, tmp_path: Path) -> None:
    try:
        import mindspore  # noqa: F401
    except ImportError:
        said = str(problem(lambda: mindrecord.write(prepared, tmp_path / "x", length=512, pad=PAD)))
        assert "mindspore cannot be imported" in said and not (tmp_path / "x").exists()
        assert json.loads((prepared / "meta.json").read_text())["template"] == "llama3"
    else:
        pytest.skip("mindspore is installed here")
