"""A finished run directory for each test."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from built_run import Edit, build


@pytest.fixture(scope="session")
def _template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("report") / "run"
    build(run)
    return run


@pytest.fixture
def run(_template: Path, tmp_path: Path) -> Path:
    """A finished run directory of the test's own."""
    return Path(shutil.copytree(_template, tmp_path / "run"))


@pytest.fixture
def edit_plan(run: Path) -> Callable[[Edit], None]:
    """Changes plan.yaml of `run` in place."""

    def edit(change: Edit) -> None:
        content = yaml.safe_load((run / "plan.yaml").read_text(encoding="utf-8"))
        change(content)
        (run / "plan.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")

    return edit
