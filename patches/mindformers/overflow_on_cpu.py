"""The training step's overflow check on a CPU, where MindSpore takes that of the first Ascend generation."""

from __future__ import annotations

from typing import Any

VERSIONS = ">=1.8,<1.9"
REASON = (
    "TrainOneStepWithLossScaleCell knows the overflow checks of GPU and of Ascend only: on a CPU it takes that of the "
    "first Ascend generation, whose operator NPUGetFloatStatusV2 has no CPU kernel, so training does not compile."
)
UPSTREAM = "mindspore/nn/wrap/loss_scale.py, TrainOneStepWithLossScaleCell.__init__; used by mindformers' wrapper.py"


def apply() -> None:
    """On a CPU, look for infinities and NaNs in the gradients themselves. Does nothing on an accelerator."""
    import mindspore as ms
    from mindspore.nn.wrap.loss_scale import TrainOneStepWithLossScaleCell

    if getattr(TrainOneStepWithLossScaleCell.__init__, "overflow_on_cpu", False):
        return
    original = TrainOneStepWithLossScaleCell.__init__

    def initialize(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        if ms.get_context("device_target") == "CPU":
            self.ascend_910b_target = True
            self._ascend_check_overflow_mode = "INFNAN_MODE"
            self.enable_allfinite = False

    initialize.overflow_on_cpu = True  # type: ignore[attr-defined]
    TrainOneStepWithLossScaleCell.__init__ = initialize
