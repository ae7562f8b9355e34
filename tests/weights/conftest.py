"""Models that the tests share: made once, never written to."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from common.weights import tiny


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """The tiny model of a kind (base, instruct) and dtype, made when first asked for."""
    root = tmp_path_factory.mktemp("models")

    def model(kind: str = "base", dtype: str = "bf16") -> Path:
        folder = root / f"{kind}-{dtype}"
        if not folder.exists():
            tiny.make(folder, kind=kind, dtype=dtype, layers=2, seed=1)
        return folder

    return model


@pytest.fixture
def model(models: Callable[..., Path], tmp_path: Path) -> Path:
    """A tiny bf16 base model of the test's own, to be damaged."""
    folder = tmp_path / "model"
    shutil.copytree(models(), folder)
    return folder
