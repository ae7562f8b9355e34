"""nnScaler on CPU processes: it asks torch.cuda everywhere, and plans nothing without."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

VERSIONS = "==0.8"
REASON = (
    "nnScaler calls torch.cuda for the current device, memory, random states and synchronization, moves tensors with "
    ".cuda(), answers 'cuda' for a tensor's device while it traces, and times each operator for two seconds or more."
)
UPSTREAM = "nnscaler/runtime/device.py, cli/trainer.py, profiler/database.py, graph/tracer/concrete_proxy.py"

PROFILE = (0.01, 1, 0.1)  # seconds of warm-up, repetitions, most seconds: a rough time will do
NOTHING = ("set_device", "synchronize", "empty_cache", "reset_peak_memory_stats", "set_rng_state", "default_stream")
NO_MEMORY = ("memory_allocated", "max_memory_allocated", "memory_reserved", "max_memory_reserved")


def apply() -> None:
    """Make "move to the accelerator" mean "stay", and torch.cuda answer for the host. Does nothing where CUDA is."""
    import torch
    import torch._dynamo  # first: it looks at torch.cuda's functions by identity, and must see the real ones

    if torch.cuda.is_available() or getattr(torch.Tensor.cuda, "stays", False):
        return
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    device = torch.device("cpu")

    def stay(self: Any, *_: Any, **__: Any) -> Any:
        return self

    stay.stays = True  # type: ignore[attr-defined]
    answers: dict[str, Any] = {
        **dict.fromkeys(NOTHING, lambda *_, **__: None),
        **dict.fromkeys(NO_MEMORY, lambda *_, **__: 0),
        "current_device": lambda: device,
        "mem_get_info": lambda *_, **__: (total, total),
        "get_device_properties": lambda *_, **__: SimpleNamespace(name="cpu", total_memory=total),
        "get_rng_state": lambda *_, **__: torch.zeros(0, dtype=torch.uint8),
    }
    for name, answer in answers.items():
        setattr(torch.cuda, name, answer)
    torch.Tensor.cuda = stay  # type: ignore[method-assign]
    torch.nn.Module.cuda = stay  # type: ignore[assignment]

    from nnscaler.graph.tracer.concrete_proxy import ConcreteAttrProxy
    from nnscaler.profiler import database

    original = ConcreteAttrProxy.__init__

    def initialize(self: Any, root: Any, attribute: str) -> None:
        original(self, root, attribute)
        if attribute == "device":
            self.value = device

    ConcreteAttrProxy.__init__ = initialize
    database.profile.__defaults__ = PROFILE
