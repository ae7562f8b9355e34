"""4-bit weights keep their layout in evaluation forwards on CPUs with AVX512-BF16."""

from __future__ import annotations

from typing import Any

VERSIONS = ">=0.50,<0.51"
REASON = (
    "On a CPU with AVX512-BF16 the first forward in eval mode repacks Linear4bit's weight in place for an inference "
    "kernel. Training afterwards reads the repacked bytes as if they were not: gradients are silently wrong "
    "(a gradient norm of 6.161 became 2.498)."
)
UPSTREAM = "bitsandbytes/nn/modules.py, Linear4bit.forward: the branch on support_avx512bf16_for_cpu"


def apply() -> None:
    """Make every Linear4bit built from now on keep the layout it was quantized to."""
    from bitsandbytes.nn import Linear4bit

    if getattr(Linear4bit.__init__, "keep_4bit_layout", False):
        return
    original = Linear4bit.__init__

    def initialize(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self.support_avx512bf16_for_cpu = False

    initialize.keep_4bit_layout = True  # type: ignore[attr-defined]
    Linear4bit.__init__ = initialize
