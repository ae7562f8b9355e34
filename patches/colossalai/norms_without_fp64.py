"""Gradient norms on devices without fp64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

VERSIONS = ">=0.4.4,<0.4.5"
REASON = (
    "All gradient norms turn each gradient to fp64 on the device. BI-V150 has no usable fp64. A norm accumulated "
    "tensor by tensor in fp32 is off by parts in a million, which clipping does not notice."
)
UPSTREAM = "grad.data.double() in _compute_grad_norm of hybrid_parallel_plugin.py, low_level_optim.py and naive_amp"


def apply() -> None:
    """Compute gradient norms in fp32."""
    from colossalai.amp.naive_amp.mixed_precision_optimizer import MixedPrecisionOptimizer
    from colossalai.booster.plugin import hybrid_parallel_plugin as hybrid
    from colossalai.zero.low_level import LowLevelZeroOptimizer

    for kind in (
        MixedPrecisionOptimizer,
        LowLevelZeroOptimizer,
        hybrid.HybridParallelNaiveOptimizer,
        hybrid.HybridParallelAMPOptimizer,
        hybrid.HybridParallelZeroOptimizer,
    ):
        if not getattr(kind._compute_grad_norm, "without_fp64", False):
            kind._compute_grad_norm = in_fp32(kind._compute_grad_norm)


def in_fp32(compute: Callable[..., float]) -> Callable[..., float]:
    """`compute`, where Tensor.double() means Tensor.float() as long as it runs."""
    import torch

    def without_fp64(*args: Any, **kwargs: Any) -> float:
        double = torch.Tensor.double
        torch.Tensor.double = torch.Tensor.float  # type: ignore[method-assign, assignment]
        try:
            return compute(*args, **kwargs)
        finally:
            torch.Tensor.double = double  # type: ignore[method-assign]

    without_fp64.without_fp64 = True  # type: ignore[attr-defined]
    return without_fp64
