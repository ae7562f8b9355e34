"""A combination that cannot be ends in one message that says what to do."""

from __future__ import annotations

import copy
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from checkpoints import Checkpoint, need_whole
from conftest import SAVED, Variant
from data import open_rows
from setup import build, check, learning_rate, three_d

from common.errors import RunError, UserError


@pytest.mark.parametrize(
    ("plugin", "precision", "sizes", "says"),
    [
        ("ddp", "fp32", {"tp_size": 2}, "plugin ddp only parallelises over data"),
        ("gemini", "fp32", {"tp_size": 1}, "Gemini trains in bf16"),
        ("zero", "bf16", {"tp_size": 1, "zero_stage": 0}, "plugin zero has stages 1 and 2"),
        ("3d", "fp32", {"zero_stage": 1}, "ZeRO in bf16 only"),
        ("3d", "bf16", {"pp_size": 2, "zero_stage": 2}, "pipelines go with ZeRO 0 or 1"),
        ("3d", "fp32", {"pp_size": 4}, "4 stages need as many micro-batches"),
        ("3d", "fp32", {"tp_size": 3}, "2 key-value heads do not divide among 3 ranks"),
        ("3d", "fp32", {"sp_size": 2}, "2 key-value heads do not divide among 4 ranks"),
        ("3d", "fp32", {"pp_size": 5}, "5 stages of a pipeline cannot share 4 layers"),
        ("3d", "fp16", {}, "fp16 is not supported"),
    ],
)
def test_what_plugins_cannot_do(
    plugin: str, precision: str, sizes: dict[str, int], says: str, config: dict[str, Any]
) -> None:
    mine = copy.deepcopy(config)
    mine["plugins"]["3d"] |= sizes
    with pytest.raises(UserError, match=says) as caught:
        check(mine, plugin, precision)
    assert "to do:" in str(caught.value)


def test_a_vocabulary_is_never_padded(config: dict[str, Any], tmp_path: Path) -> None:
    """Llama 3's would be, on 8 tensor-parallel ranks, and the first checkpoint would fail."""
    assert three_d(config, dict(config["plugins"]["3d"]), "fp32")["make_vocab_size_divisible_by"] == 1
    model = json.loads((Path(config["model"]["path"]) / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**model, "vocab_size": 1281}))
    mine = {**config, "model": {**config["model"], "path": str(tmp_path)}}
    with pytest.raises(UserError, match="vocabulary of 1281 does not divide among 2 ranks"):
        check(mine, "3d", "fp32")


def test_recomputed_layers_that_a_stage_has_not(config: dict[str, Any]) -> None:
    mine = copy.deepcopy(config)
    mine["plugins"]["3d"] |= {"tp_size": 1, "pp_size": 2}
    mine["model"]["recomputed_layers"] = [2, 3]
    with pytest.raises(UserError, match="more than a stage has of 4 layers"):
        check(mine, "3d", "fp32")


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"warmup_steps": 12}, "the warm-up is as long as the training"), ({"name": "linear"}, "no schedule 'linear'")],
)
def test_a_schedule_that_cannot_be(changes: dict[str, Any], says: str, config: dict[str, Any]) -> None:
    mine = {**config, "lr_scheduler": {**config["lr_scheduler"], **changes}}
    with pytest.raises(UserError, match=says):
        learning_rate(mine, 5, 12)


def test_a_scaled_rotary_embedding_is_refused(run: Path, config: dict[str, Any], tmp_path: Path) -> None:
    """transformers 4.39 would ignore Llama 3.1's scaling, or stop with a traceback."""
    content = json.loads((run / "weights" / "config.json").read_text())
    content["rope_scaling"] = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0}
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="not the scaled one"):
        build({**config, "model": {**config["model"], "path": str(tmp_path)}})


def test_packed_rows_are_refused(tmp_path: Path) -> None:
    (tmp_path / "meta.json").write_text('{"packing": "bfd"}')
    with pytest.raises(UserError, match="packed rows"):
        open_rows(tmp_path / "train", None)


@pytest.mark.parametrize("part", ["modeling/*.safetensors", "optimizer/*.bin", "masters/*", "optimizer/*.index.json"])
def test_a_checkpoint_that_was_cut_off_is_refused(part: str, variants: dict[str, Variant], tmp_path: Path) -> None:
    """Every kind of file. What is whole passes."""
    source = variants["zero1"].folder / "checkpoints" / f"step-{SAVED}"
    folder = tmp_path / source.name
    shutil.copytree(source, folder)
    need_whole(Checkpoint(SAVED, folder))
    file = sorted(folder.glob(part))[0]
    os.truncate(file, file.stat().st_size - 2)  # of JSON: the last bracket and the end of its line
    with pytest.raises(RunError, match="is cut off") as caught:
        need_whole(Checkpoint(SAVED, folder))
    assert str(file) in str(caught.value) and f"remove {folder}" in str(caught.value)
