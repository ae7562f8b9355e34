"""Greedy decoding on a CPU, for which MindSpore's newer argmax has no kernel."""

from __future__ import annotations

from typing import Any

VERSIONS = ">=1.8,<1.9"
REASON = "mindformers' greedy search calls mindspore.mint.argmax, whose operator ArgMaxExt has no CPU kernel."
UPSTREAM = "mindformers/generation/text_generator.py, calls of mint.argmax; mindspore/mint/__init__.py"


def apply() -> None:
    """On a CPU, let mint.argmax be ops.argmax, which gives the same indices. Does nothing on an accelerator."""
    import mindspore as ms

    if getattr(ms.mint.argmax, "argmax_on_cpu", False):
        return
    original = ms.mint.argmax

    def argmax(input: Any, dim: int | None = None, keepdim: bool = False) -> Any:
        if ms.get_context("device_target") == "CPU":
            return ms.ops.argmax(input, dim, keepdim)
        return original(input, dim, keepdim)

    argmax.argmax_on_cpu = True  # type: ignore[attr-defined]
    ms.mint.argmax = argmax
