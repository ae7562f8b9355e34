"""What a model on disk is, from its config and headers alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.weights import config as configs
from common.weights import hugging_face
from common.weights.config import LlamaConfig
from common.weights.safetensors_header import ITEM_SIZES


@dataclass(frozen=True)
class Summary:
    """A model on disk. `dtype` is the one that most parameters have, as in the format's headers (BF16, F32)."""

    format: str
    architecture: str
    parameters: int
    dtype: str
    shards: int
    bytes: int  # of the tensors
    config: LlamaConfig

    def as_dict(self) -> dict[str, Any]:
        """The summary as plain values, for JSON."""
        return asdict(self)


def inspect(path: Path) -> Summary:
    """What the model in `path` is, without loading a tensor; its headers are checked on the way.

    Raises UserError when it is missing, broken, truncated or contradicts its config.
    """
    if not path.exists():
        raise UserError("no such model", file=path, hint="give a model folder")
    config = configs.read_hugging_face(path)
    located = hugging_face.without_extras(hugging_face.locate(path), tied=config.tie_word_embeddings)
    shapes = {name: item.entry.shape for name, item in located.items()}
    hugging_face.check_shapes(shapes, configs.tensor_shapes(config), path)
    sizes: Counter[str] = Counter()
    for item in located.values():
        sizes[item.entry.dtype] += prod(item.entry.shape)
    return Summary(
        format="hf",
        architecture=configs.ARCHITECTURE,
        parameters=sizes.total(),
        dtype=sizes.most_common(1)[0][0],
        shards=len({item.file for item in located.values()}),
        bytes=sum(ITEM_SIZES[dtype] * count for dtype, count in sizes.items()),
        config=config,
    )
