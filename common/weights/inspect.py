"""What a model on disk is, from its config and headers alone."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.weights.config import ARCHITECTURE, LlamaConfig
from common.weights.source import Source, dtype_counts, open_source


@dataclass(frozen=True)
class Summary:
    """A model on disk. `dtype` (fp32, bf16, fp16) is the one that most parameters have."""

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


def inspect(path: Path, config: Path | None = None) -> Summary:
    """What the model in `path` is, without loading a tensor; its headers are checked on the way.

    `config` replaces the config beside the weights. Raises UserError when the model is missing,
    broken, truncated or contradicts its config.
    """
    return summarise(open_source(path, config))


def summarise(source: Source) -> Summary:
    """What the open model `source` is."""
    counts = dtype_counts(source)
    return Summary(
        format=source.format,
        architecture=ARCHITECTURE,
        parameters=sum(counts.values()),
        dtype=next(iter(counts)),
        shards=len(source.files),
        bytes=sum(tensor.nbytes for tensor in source.tensors.values()),
        config=source.config,
    )
