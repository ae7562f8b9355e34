"""How many parameters a model has and an adapter trains, counted from their files."""

from __future__ import annotations

import math
from pathlib import Path

from common.weights import safetensors_header
from common.weights.config import read_hugging_face, tensor_shapes

ADAPTER_FILE = "adapter_model.safetensors"


def of_adapter(adapter: Path) -> int:
    """The parameters of a PEFT adapter folder. Raises UserError when its file is missing or broken."""
    header = safetensors_header.read(adapter / ADAPTER_FILE)
    return sum(math.prod(entry.shape) for entry in header.entries.values())


def of_model(model: Path) -> int:
    """The parameters of the model that a folder's config.json describes; tied embeddings count once."""
    return sum(math.prod(shape) for shape in tensor_shapes(read_hugging_face(model)).values())


def trained_ratio(model: Path, adapter: Path) -> float:
    """An adapter's parameters over those of its base, as the contest takes it."""
    return of_adapter(adapter) / of_model(model)
