"""FSDP2 on CPU processes, where accelerate silently runs DDP instead."""

from __future__ import annotations

from typing import Any

VERSIONS = ">=1.15,<1.16"
REASON = (
    "AcceleratorState knows FSDP only for a list of accelerators: with use_cpu and an FSDP plugin it keeps MULTI_CPU, "
    "so every process trains a whole, unsharded replica under DDP and nothing says so."
)
UPSTREAM = "accelerate/state.py, AcceleratorState.__init__: the list that starts with DistributedType.MULTI_GPU"


def apply() -> None:
    """Make an FSDP plugin mean FSDP on CPU processes too. Does nothing on an accelerator."""
    import torch
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import DistributedType
    from torch.distributed.fsdp import CPUOffloadPolicy

    if getattr(AcceleratorState.__init__, "fsdp_on_cpu", False):
        return
    original = AcceleratorState.__init__

    def initialize(self: Any, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
        original(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is None or self.distributed_type != DistributedType.MULTI_CPU:
            return
        self.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
        self.fsdp_plugin = fsdp_plugin
        if self._mixed_precision != "no":
            fsdp_plugin.set_mixed_precision(self._mixed_precision)
        if isinstance(fsdp_plugin.cpu_offload, CPUOffloadPolicy):
            fsdp_plugin.cpu_offload = CPUOffloadPolicy(pin_memory=False)  # pinning needs an accelerator
        self.device = PartialState._shared_state["device"] = torch.device("cpu")

    initialize.fsdp_on_cpu = True  # type: ignore[attr-defined]
    AcceleratorState.__init__ = initialize
