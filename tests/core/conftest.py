"""The small recipe, and environments that cost nothing to make."""

from __future__ import annotations

from pathlib import Path

import pytest
from core_support import fake_environments, write_recipe


@pytest.fixture
def recipe_folder(tmp_path: Path) -> Path:
    return write_recipe(tmp_path / "small")


@pytest.fixture
def environments(tmp_path: Path, recipe_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLAMA3_RECIPES_ENVS", "")  # so that it is put back afterwards
    return fake_environments(tmp_path / "environments", recipe_folder)
