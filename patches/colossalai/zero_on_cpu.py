"""ZeRO 1 and 2 on CPU processes."""

from __future__ import annotations

from typing import Any

VERSIONS = ">=0.4.4,<0.4.5"
REASON = (
    "LowLevelZeroOptimizer asserts that the accelerator is cuda or npu, and overlaps communication on streams, for "
    "which it calls Tensor.record_stream: neither is on a CPU."
)
UPSTREAM = "colossalai/zero/low_level/low_level_optim.py, _sanity_checks and _run_reduction"


def apply() -> None:
    """Let ZeRO run on CPU processes, without overlap."""
    from colossalai.zero.low_level import LowLevelZeroOptimizer

    if getattr(LowLevelZeroOptimizer.__init__, "zero_on_cpu", False):
        return
    original = LowLevelZeroOptimizer.__init__

    def initialize(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **{**kwargs, "overlap_communication": False})

    def check_dtypes(self: Any) -> None:
        for group in self.optim.param_groups:
            for parameter in group["params"]:
                if parameter.dtype != self._dtype and not getattr(parameter, "skip_zero_check", False):
                    raise AssertionError(f"parameters are {self._dtype}, but one is {parameter.dtype}")

    initialize.zero_on_cpu = True  # type: ignore[attr-defined]
    LowLevelZeroOptimizer.__init__ = initialize
    LowLevelZeroOptimizer._sanity_checks = check_dtypes
