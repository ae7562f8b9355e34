"""The commands of the README are right: each plans, on the platforms that its preset names."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from conftest import RECIPE, run_sh

COMMAND = re.compile(r"bash recipes/nnscaler_8b/run\.sh[^`\n\\]*(?:\\\n[^`\n\\]*)*")
TEXT = (RECIPE / "README.md").read_text(encoding="utf-8")
COMMANDS = sorted(set(COMMAND.findall(TEXT)))


def test_there_are_commands() -> None:
    assert len(COMMANDS) >= 12
    assert any("--preset mini" in command and "model.layers=2" in command for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_plans(prepared: Path, command: str) -> None:
    words = shlex.split(command.replace("\\\n", " "))[2:]
    places = {"DIR_OR_HUB_ID": prepared / "weights", "PATH_OR_HUB_ID": RECIPE / "samples" / "train.txt"}
    words = [str(places.get(word, word)) for word in words]
    if "--preset" in words:
        words += ["--platform", "nvidia_80gb"]
    done = run_sh(*words, "--dry-run", NNSCALER_SOURCE="")
    assert done.returncode == 0, done.stderr
    assert str(RECIPE / "train.py") in done.stdout
    for word in words:
        if word.startswith("config."):
            key, _, value = word.partition("=")
            assert f"{key.rpartition('.')[2]}: {value}" in done.stdout, "it reaches nnScaler"


def test_the_words_of_the_demo(prepared: Path) -> None:
    """--mini is four layers from scratch in rows of 4,096, and --num_hidden_layers another number of them."""
    options = ["--preset", "mini", "--platform", "nvidia_80gb", "--model", prepared / "weights"]
    options += ["--data", RECIPE / "samples" / "train.txt", "--dry-run"]
    mini = run_sh(*options).stdout
    for text in ("from_scratch: true", "layers: 4", "max_length: 4096", "max_train_steps: 1000", "--nproc-per-node=2"):
        assert text in mini
    assert "layers: 2" in run_sh(*options, "--set", "model.layers=2").stdout
