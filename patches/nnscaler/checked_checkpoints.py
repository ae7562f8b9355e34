"""nnScaler's checkpoints read as data: nothing in them runs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

VERSIONS = "==0.8"
REASON = (
    "The trainer reads checkpoints with torch.load(weights_only=False): a checkpoint from somebody else runs whatever "
    "it likes when training is resumed from it, or when it is merged."
)
UPSTREAM = "nnscaler/cli/trainer.py, _load_checkpoint and _merge_checkpoint"


class Torch(SimpleNamespace):
    """The module torch as the trainer sees it, with another `load`."""

    def __getattr__(self, name: str) -> Any:
        import torch

        return getattr(torch, name)


def apply() -> None:
    """Let the trainer's own torch.load take tensors, plain values and slices (where a shard lies) alone."""
    import torch
    from nnscaler.cli import trainer

    def load(file: Any, map_location: Any = None, weights_only: bool = True) -> Any:
        with torch.serialization.safe_globals([slice]):
            return torch.load(file, map_location, weights_only=True)

    trainer.torch = Torch(load=load)
