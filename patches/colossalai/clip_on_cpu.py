"""Gradient clipping of bf16 gradients whose optimizer state is on the CPU."""

from __future__ import annotations

from typing import Any

VERSIONS = ">=0.4.4,<0.4.5"
REASON = (
    "Gemini clips by passing div_scale to the optimizer's step. For a bf16 gradient on the CPU, HybridAdam takes "
    "another path that does not know div_scale, so gradients are not clipped: on CPU processes, and with offload."
)
UPSTREAM = "colossalai/nn/optimizer/hybrid_adam.py, HybridAdam.step: the call of torch_adam_update"


def apply() -> None:
    """Give HybridAdam's CPU kernel fp32 gradients, which it divides by div_scale."""
    import torch
    from colossalai.nn.optimizer import HybridAdam

    if getattr(HybridAdam.step, "clip_on_cpu", False):
        return
    original = HybridAdam.step

    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        for group in self.param_groups:
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is not None and gradient.device.type == "cpu" and gradient.dtype == torch.bfloat16:
                    parameter.grad = None  # the dtype of a gradient cannot be changed in place
                    parameter.grad = gradient.float()
        return original(self, *args, **kwargs)

    step.clip_on_cpu = True  # type: ignore[attr-defined]
    HybridAdam.step = step
