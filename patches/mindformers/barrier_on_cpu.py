"""Waiting for the other processes on a CPU, where MindSpore's Barrier has no kernel."""

from __future__ import annotations

import sys
from typing import Any

VERSIONS = ">=1.8,<1.9"
REASON = (
    "mindformers calls mindspore.communication.comm_func.barrier before it loads a checkpoint on several processes; "
    "its operator Barrier has no CPU kernel, so every launch of more than one CPU process fails."
)
UPSTREAM = "mindformers/trainer/utils.py, preload_ckpt; mindspore/communication/comm_func.py, barrier"


def apply() -> None:
    """On a CPU, let a barrier be the sum of ones over all processes. Does nothing on an accelerator."""
    import mindspore as ms
    from mindspore.communication import comm_func

    original = comm_func.barrier
    if getattr(original, "barrier_on_cpu", False):
        return

    def barrier(*args: Any, **kwargs: Any) -> Any:
        if ms.get_context("device_target") != "CPU":
            return original(*args, **kwargs)
        return ms.ops.AllReduce()(ms.Tensor([1.0], ms.float32)).asnumpy() and None

    barrier.barrier_on_cpu = True  # type: ignore[attr-defined]
    comm_func.barrier = barrier
    for name, module in list(sys.modules.items()):  # those that have imported it by name
        if name.startswith("mindformers.") and getattr(module, "barrier", None) is original:
            module.barrier = barrier  # type: ignore[attr-defined]
