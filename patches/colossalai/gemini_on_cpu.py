"""Gemini (ZeRO 3 in chunks) on CPU processes."""

from __future__ import annotations

from typing import Any

VERSIONS = ">=0.4.4,<0.4.5"
REASON = (
    "GeminiDDP makes a CUDA stream to reduce gradients on, and takes a chunk whose device is called cpu for one that "
    "was offloaded: where the accelerator itself is the CPU, sharded chunks cannot be brought back."
)
UPSTREAM = "colossalai/zero/gemini/gemini_ddp.py, GeminiDDP.__init__; zero/gemini/chunk, device_type and move_chunk"


def apply() -> None:
    """Let Gemini run on CPU processes: nothing is offloaded, and gradients are reduced where they are made."""
    from colossalai.zero.gemini.chunk import Chunk, ChunkManager
    from colossalai.zero.gemini.gemini_ddp import GeminiDDP

    if getattr(GeminiDDP.__init__, "gemini_on_cpu", False):
        return
    original, close = GeminiDDP.__init__, Chunk.close_chunk

    def initialize(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **{**kwargs, "enable_async_reduce": False, "pin_memory": False})

    def close_chunk(self: Any) -> None:
        close(self)
        if self.cpu_shard is not None:  # "offloaded"
            self.cuda_shard, self.cpu_shard = self.cpu_shard, None

    def stay(self: Any, chunk: Any, device: Any, force_copy: bool = False, async_move: bool = False) -> None: ...

    initialize.gemini_on_cpu = True  # type: ignore[attr-defined]
    GeminiDDP.__init__ = initialize
    Chunk.close_chunk = close_chunk
    Chunk.device_type = property(lambda self: "cuda")  # Gemini's word for "on the accelerator"
    ChunkManager.move_chunk = stay
