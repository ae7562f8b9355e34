"""What is wrong in the public original stays corrected (recipe.yaml, reproduces.corrected)."""

from __future__ import annotations

import pytest
from conftest import run_sh


def test_unknown_key_is_an_error() -> None:
    """The original's max_seq_len was ignored, and it trained at 512 tokens."""
    for key in ("data.max_seq_len=3072", "config.sft.learning_rat=1e-4"):
        done = run_sh("--dry-run", "--set", key)
        assert done.returncode == 2 and "did you mean" in done.stderr, done.stderr


def test_max_length_reaches_the_data() -> None:
    done = run_sh("--dry-run", "--set", "data.max_length=3072")
    assert "--max-length 3072" in done.stdout
    assert "up to 3072 tokens" in done.stdout


@pytest.mark.parametrize("assignment", ["train.learning_rate=0.0002", "train.learning_rate=2e-4"])
def test_an_override_equal_to_the_default_wins(assignment: str) -> None:
    """2e-4 is recipe.yaml's default and not the smoke preset's value: it must win over the preset."""
    assert "learning_rate: 0.01\n" in run_sh("--dry-run").stdout
    assert "learning_rate: 0.0002\n" in run_sh("--dry-run", "--set", assignment).stdout


def test_loss_on_everything_is_an_option() -> None:
    assert "--loss-on answers" in run_sh("--dry-run").stdout
    assert "--loss-on all" in run_sh("--dry-run", "--set", "data.loss_on=all").stdout
