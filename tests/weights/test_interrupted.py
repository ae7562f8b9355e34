"""A conversion that is interrupted, meets another one, or runs out of space, leaves nothing half-written."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.errors import RunError, UserError
from common.weights import convert as converting
from common.weights import tiny
from common.weights.convert import Options, convert
from common.weights.inspect import inspect
from common.weights.source import open_source
from common.weights.verify import verify

Models = Callable[..., Path]
LIMIT = 900_000  # bytes: the first shard (852 kB) fits, the second (983 kB) does not


def limited() -> None:
    """Let no file grow beyond LIMIT: writing fails half way, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT))


CONVERT = (sys.executable, "-m", "common.weights", "convert")


def test_a_conversion_that_cannot_write_leaves_no_target_and_goes_on_later(models: Models, tmp_path: Path) -> None:
    target = tmp_path / "out"
    arguments = (str(models()), str(target), "--to", "hf", "--dtype", "fp32", "--shard-size", "1MB")
    failed = subprocess.run((*CONVERT, *arguments), preexec_fn=limited, capture_output=True, text=True)
    assert failed.returncode == 1
    assert "error: " in failed.stderr
    assert "Traceback" not in failed.stderr
    assert not target.exists()
    finished = list((tmp_path / "out.partial").glob("*.safetensors"))
    assert finished
    times = {file.name: file.stat().st_mtime_ns for file in finished}
    subprocess.run((*CONVERT, *arguments), check=True)
    assert not (tmp_path / "out.partial").exists()
    assert {name: (target / name).stat().st_mtime_ns for name in times} == times  # not written again
    assert inspect(target).dtype == "fp32"
    assert not list(target.glob("*.partial"))
    assert not (target / "conversion.json").exists()


def test_finished_shards_of_another_conversion_are_not_used(models: Models, tmp_path: Path) -> None:
    target, partial = tmp_path / "out", tmp_path / "out.partial"
    tiny.make(tmp_path / "other", layers=2, seed=5)
    convert(tmp_path / "other", partial, Options("hf"))  # of the same size and type, from other weights
    (partial / "conversion.json").write_text(json.dumps({"source": "another"}))
    convert(models(), target, Options("hf"))
    assert verify(open_source(models()), open_source(target)).same


def test_finished_parts_are_not_used_with_another_config(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, whole = (model / "config.json").read_text(), converting._write

    def interrupted(folder: Path, file: Any, *rest: Any) -> None:
        if file.name != "consolidated.00.pth":
            raise KeyboardInterrupt
        whole(folder, file, *rest)

    # Heads of another size are permuted otherwise for Meta, and have the same shapes.
    sizes = {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 16}
    (model / "config.json").write_text(json.dumps(json.loads(right) | sizes))
    monkeypatch.setattr(converting, "_write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert(model, tmp_path / "out", Options("meta", split=2))
    assert (tmp_path / "out.partial" / "consolidated.00.pth").exists()
    monkeypatch.undo()
    (model / "config.json").write_text(right)
    convert(model, tmp_path / "out", Options("meta", split=2))
    assert verify(open_source(model), open_source(tmp_path / "out")).same


def test_two_conversions_into_one_output_do_not_meet(models: Models, tmp_path: Path) -> None:
    partial = tmp_path / "out.partial"
    partial.mkdir()
    (partial / "of the other").write_text("")
    descriptor = os.open(partial, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(UserError, match="another command is writing"):
        convert(models(), tmp_path / "out", Options("meta"))
    assert (partial / "of the other").exists()
    os.close(descriptor)
    convert(models(), tmp_path / "out", Options("meta"))
    assert not partial.exists()
    assert not (tmp_path / "out" / "of the other").exists()


def test_an_empty_folder_that_one_stands_in(models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    convert(models(), Path(), Options("mindspore"))
    assert verify(open_source(models()), open_source(tmp_path / "here")).same


def test_no_space_is_seen_before_anything_is_written(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
    with pytest.raises(RunError, match="not enough space"):
        convert(models(), tmp_path / "out", Options("meta"))
    assert list(tmp_path.iterdir()) == []
