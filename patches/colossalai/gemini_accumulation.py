"""Gradient accumulation of Gemini where every rank keeps a chunk whole."""

from __future__ import annotations

from typing import Any

VERSIONS = ">=0.4.4,<0.4.5"
REASON = (
    "Gemini reduces gradients after every micro-batch and adds what was accumulated before to the next. A chunk that "
    "every rank keeps whole is then added by each of them, so all micro-batches but the last count once a rank."
)
UPSTREAM = "colossalai/zero/gemini/chunk/manager.py, ChunkManager.rearrange_accumulated_grad_chunk; the same in 0.5.0"


def apply() -> None:
    """Let the first rank alone add what was accumulated in a whole chunk."""
    from colossalai.zero.gemini.chunk import ChunkManager

    original = ChunkManager.rearrange_accumulated_grad_chunk
    if getattr(original, "gemini_accumulation", False):
        return

    def rearrange(self: Any, chunk: Any) -> Any:
        if chunk.grad_chunk.is_gathered and chunk.pg_rank > 0:
            chunk.grad_chunk.cuda_global_chunk.zero_()
        return original(self, chunk)

    rearrange.gemini_accumulation = True  # type: ignore[attr-defined]
    ChunkManager.rearrange_accumulated_grad_chunk = rearrange
