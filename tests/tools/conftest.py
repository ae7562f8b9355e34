"""Projects for the tests of tools."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from example_project import make_project


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that no test changes."""
    return make_project(tmp_path_factory.mktemp("pristine"))


@pytest.fixture
def project(pristine: Path, tmp_path: Path) -> Path:
    """A project for one test."""
    return Path(shutil.copytree(pristine, tmp_path / "project"))
