"""Gemini (ZeRO 3 in chunks) on CPU processes."""

from __future__ import annotations

from typing import Any

VERSIONS = ">=0.4.4,<0.4.5"
REASON = (
    "GeminiDDP makes a CUDA stream to reduce gradients on, and a chunk tells where it is by its device's name: where "
    "the accelerator itself is the CPU, every chunk looks as if it were offloaded."
)
UPSTREAM = "colossalai/zero/gemini/gemini_ddp.py, GeminiDDP.__init__; zero/gemini/chunk/chunk.py, Chunk.device_type"


def apply() -> None:
    """Let Gemini run on CPU processes, reducing gradients where they are made."""
    from colossalai.zero.gemini.chunk.chunk import Chunk
    from colossalai.zero.gemini.gemini_ddp import GeminiDDP

    if getattr(GeminiDDP.__init__, "gemini_on_cpu", False):
        return
    original = GeminiDDP.__init__

    def initialize(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **{**kwargs, "enable_async_reduce": False})

    def device_type(self: Any) -> str:
        here = self.chunk_temp is not None or self.is_gathered or self.cuda_shard is not None
        return "cuda" if here else "cpu"  # Gemini's words for "on the accelerator" and "offloaded"

    initialize.gemini_on_cpu = True  # type: ignore[attr-defined]
    GeminiDDP.__init__ = initialize
    Chunk.device_type = property(device_type)
