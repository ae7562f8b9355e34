"""The saved adapter, read by `python -m common.weights`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from conftest import ROOT


def weights(*arguments: object) -> str:
    """What `python -m common.weights ARGUMENTS` prints."""
    command = [sys.executable, "-m", "common.weights", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_adapter_on_its_base_is_the_exported_model(run: Path, tmp_path: Path) -> None:
    adapter = ["--base", run / "weights"]  # a .ckpt
    shown = json.loads(weights("inspect", run / "adapter"))
    assert (shown["format"], shown["rank"], shown["target_modules"]) == ("peft", 8, ["q_proj", "v_proj"])
    weights("convert", run / "adapter", tmp_path / "merged", "--to", "hf", *adapter, "--dtype", "bf16")
    assert "the same: 39 tensors" in weights("verify", run / "model", tmp_path / "merged")
