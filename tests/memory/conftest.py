"""Where torch is."""

from __future__ import annotations

import os

import pytest

from common import recipe
from common.plan import environment_spec


@pytest.fixture(scope="session")
def torch_python() -> str:
    """A Python with torch and transformers: LLAMA3_TORCH_PYTHON, or of the FSDP recipe's environment if it is there."""
    if named := os.environ.get("LLAMA3_TORCH_PYTHON"):
        return named
    folder = recipe.find("fsdp_qlora_70b")
    spec = environment_spec(folder, recipe.read(folder)[0], "cpu")
    if not spec.complete():
        pytest.skip("no environment with torch: run recipes/fsdp_qlora_70b once, or set LLAMA3_TORCH_PYTHON")
    return str(spec.python())
