"""The reference curves, the batches behind them, and how a recipe's losses are held to them."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from datasets import load_from_disk

from common import golden, tokenizer
from common.errors import UserError
from common.golden import batches, folder
from common.weights.tokenizer_files import BASE, special_ids


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `python -m common.golden FOLDER` writes."""
    target = tmp_path_factory.mktemp("golden") / "prepared"
    golden.prepare(target)
    return target


def test_files_are_what_the_seed_makes() -> None:
    _, bos, eos, _ = special_ids(tokenizer.TINY, BASE)
    ids, labels = batches.make(bos, eos)
    read = golden.read()
    assert np.array_equal(read.input_ids, ids) and np.array_equal(read.labels, labels)


def test_rows_are_what_every_framework_can_take() -> None:
    """Full length, one bos at the start, no padding, end-of-text inside, as many labels in each row."""
    size, bos, eos, pad = special_ids(tokenizer.TINY, BASE)
    read = golden.read()
    assert read.input_ids.shape == read.labels.shape == (golden.STEPS, golden.ROWS, golden.LENGTH)
    assert read.input_ids.dtype == read.labels.dtype == np.int32
    assert read.input_ids.min() >= 0 and read.input_ids.max() < size
    assert (read.input_ids != pad).all()
    assert ((read.input_ids == bos).sum(-1) == 1).all() and (read.input_ids[..., 0] == bos).all()
    trained = read.labels != batches.IGNORE
    assert (read.labels[trained] == read.input_ids[trained]).all()
    assert (trained.sum(-1) == batches.LABELS_PER_ROW).all() and not trained[..., 0].any()
    assert ((read.labels == eos).sum(-1) == 2).all()
    assert (read.input_ids[..., :-1] == eos).any(-1).all(), "an end-of-text before the end of each row"


def test_prepared_data_are_the_batches_in_order(prepared: Path) -> None:
    rows = load_from_disk(str(prepared / "data" / "train"))
    read = golden.read()
    assert np.array_equal(np.array(rows["input_ids"]), read.input_ids.reshape(-1, golden.LENGTH))
    assert np.array_equal(np.array(rows["labels"]), read.labels.reshape(-1, golden.LENGTH))
    assert np.array_equal(np.array(rows["position_ids"]), np.tile(np.arange(golden.LENGTH), (len(rows), 1)))
    meta = json.loads((prepared / "data" / "meta.json").read_text())
    assert meta["train"]["rows"] == golden.STEPS * golden.ROWS


def test_an_adapter_that_changes_nothing_yet(prepared: Path) -> None:
    config = json.loads((prepared / "model" / "config.json").read_text())
    assert config["num_key_value_heads"] < config["num_attention_heads"], "grouped-query attention"
    adapter = json.loads((prepared / "adapter" / "adapter_config.json").read_text())
    settings = golden.read().settings["lora"]
    assert (adapter["r"], adapter["lora_alpha"]) == (settings["rank"], settings["alpha"])
    assert Path(adapter["base_model_name_or_path"]) == prepared / "model"


def test_other_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "SEED", folder.SEED + 1)
    with pytest.raises(UserError, match="other weights"):
        folder.write(tmp_path / "golden")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", golden.KINDS)
def test_tolerances(kind: golden.Kind) -> None:
    curve = golden.read().curves[kind]
    assert len(curve) == golden.STEPS and curve[-1] < curve[0] - 1
    assert golden.compare(kind, curve).problems == []
    near = [curve[0] + 0.9e-5, *(loss - 0.9e-3 for loss in curve[1:])]
    assert golden.compare(kind, near).problems == []
    assert [p.split(":")[0] for p in golden.compare(kind, [curve[0] + 1.1e-5, *curve[1:]]).problems] == ["step 1"]
    last = golden.compare(kind, [*curve[:-1], curve[-1] + 1.1e-3])
    assert [p.split(":")[0] for p in last.problems] == ["step 20"]


def test_missing_steps_and_nan_are_problems() -> None:
    curve = golden.read().curves["full"]
    assert "19 losses, expected 20" in golden.compare("full", curve[:-1]).problems
    assert "21 losses, expected 20" in golden.compare("full", [*curve, 1.0]).problems
    assert golden.compare("full", [math.nan, *curve[1:]]).problems
    assert golden.compare("full", []).problems
    with pytest.raises(UserError, match="no such reference curve"):
        golden.compare("half", curve)  # type: ignore[arg-type]


def test_record_says_what_was_found(tmp_path: Path) -> None:
    curve = golden.read().curves["lora"]
    losses = [curve[0], curve[1] + 0.5, *curve[2:]]
    file = golden.record(tmp_path, golden.compare("lora", losses), {"trl": "1.16.0"})
    written = json.loads(file.read_text())
    assert file == tmp_path / "golden.json"
    assert written["passed"] is False and written["first_difference"] == 0
    assert abs(written["largest_difference"] - 0.5) < 1e-9
    assert written["versions"] == {"trl": "1.16.0"} and written["losses"] == losses


def test_an_output_that_exists_is_one_clear_message(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("kept")
    command = [sys.executable, "-m", "common.golden", str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=golden.environment.ROOT)
    assert ran.returncode == 2 and "exists and is not empty" in ran.stderr and "Traceback" not in ran.stderr
    assert (tmp_path / "mine").read_text() == "kept"
