"""HybridAdam and flash attention on a CPU, computed by torch's own functions."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

VERSIONS = ">=0.4.4,<0.4.5"
REASON = (
    "HybridAdam looks for a compiled CPU kernel, which 0.4.4 only builds where CUDA is. The flash attention that calls "
    "torch's scaled_dot_product_attention runs on any device, but says it needs CUDA."
)
UPSTREAM = "colossalai/kernel/kernel_loader.py, CPUAdamLoader and FlashAttentionLoader; kernel/extensions"


def apply() -> None:
    """Register torch's AdamW as the CPU kernel, and torch's attention as available."""
    from colossalai.kernel import kernel_loader
    from colossalai.kernel.extensions.base_extension import _Extension

    class TorchAdam(_Extension):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(name="torch_cpu_adam", support_aot=False, support_jit=False, priority=0)

        def is_available(self) -> bool:
            return True

        def assert_compatible(self) -> None: ...

        def build_aot(self) -> None: ...

        def build_jit(self) -> None: ...

        def load(self) -> SimpleNamespace:
            return SimpleNamespace(CPUAdamOptimizer=CpuAdam)

    known = {extension.__name__ for extension in kernel_loader.CPUAdamLoader.REGISTRY}
    if TorchAdam.__name__ not in known:
        kernel_loader.CPUAdamLoader.register_extension(TorchAdam)
    kernel_loader.FlashAttentionSdpaCudaExtension.is_available = lambda self: True


class CpuAdam:
    """What HybridAdam expects of its kernel, by torch's functional Adam and AdamW."""

    def __init__(self, lr: float, beta1: float, beta2: float, eps: float, weight_decay: float, adamw: bool) -> None:
        self.adamw = adamw

    def step(
        self,
        step: int,
        lr: float,
        beta1: float,
        beta2: float,
        eps: float,
        weight_decay: float,
        bias_correction: bool,
        param: Any,
        grad: Any,
        exp_avg: Any,
        exp_avg_sq: Any,
        div_scale: float = -1,
    ) -> None:
        """Update `param`, `exp_avg` and `exp_avg_sq` in place; `grad` is divided by a positive `div_scale` first."""
        import torch
        from torch.optim.adam import adam
        from torch.optim.adamw import adamw

        if not bias_correction:
            raise NotImplementedError("Adam without bias correction")
        update = adamw if self.adamw else adam
        update(
            [param],
            [grad.to(param.dtype) / div_scale if div_scale > 0 else grad.to(param.dtype)],
            [exp_avg],
            [exp_avg_sq],
            [],
            [torch.tensor(float(step - 1))],  # torch counts the step itself
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=lr,
            weight_decay=weight_decay,
            eps=eps,
            maximize=False,
        )
