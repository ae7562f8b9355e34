"""A data set by its hub id, as the hubs hold them: Parquet in data/, a file for each split, a card beside them."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from local_hub import Hub, serving, variables
from pyarrow import parquet


def table(rows: int, word: str) -> bytes:
    chats = [
        [{"role": "user", "content": f"{word} {row}?"}, {"role": "assistant", "content": f"It is {row}."}]
        for row in range(rows)
    ]
    content = io.BytesIO()
    parquet.write_table(pa.table({"prompt_id": [str(row) for row in range(rows)], "messages": chats}), content)
    return content.getvalue()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    hub = Hub()
    card = {"README.md": b"---\nlicense: mit\n---\n", ".gitattributes": b""}
    train = {"data/train-00000-of-00001.parquet": table(5, "train")}
    hub.repositories = {
        "someone/chats": {**card, **train},
        "someone/splits": {**card, **train, "data/test-00000-of-00001.parquet": table(3, "test")},
    }
    with serving(hub) as place:
        yield place


def prepare(address: str, home: Path, identifier: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "common.data", "prepare", "--input", identifier, "--tokenizer", "tiny"]
    command += ["--template", "llama3", "--max-length", "64", "--format", "jsonl", "--output", str(home / "out")]
    environment = variables(address, home / "hub")
    return subprocess.run([*command, *options], env=environment, capture_output=True, text=True, timeout=120)


def records(home: Path) -> int:
    meta = json.loads((home / "out" / "meta.json").read_text(encoding="utf-8"))
    return int(meta["train"]["records"])


def test_a_hub_data_set_is_prepared(address: str, tmp_path: Path) -> None:
    done = prepare(address, tmp_path, "someone/chats")
    assert done.returncode == 0, done.stderr
    assert records(tmp_path) == 5


def test_a_split_is_named_after_the_id(address: str, tmp_path: Path) -> None:
    done = prepare(address, tmp_path, "someone/splits@test")
    assert done.returncode == 0, done.stderr
    assert records(tmp_path) == 3


def test_splits_are_not_mixed_in_silence(address: str, tmp_path: Path) -> None:
    done = prepare(address, tmp_path, "someone/splits")
    assert done.returncode == 2
    assert "put @train after the folder or the hub id" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_data_set_that_the_hub_has_not(address: str, tmp_path: Path) -> None:
    done = prepare(address, tmp_path, "someone/absent")
    assert done.returncode == 2
    assert "the hub has no such dataset" in done.stderr
    assert "Traceback" not in done.stderr
