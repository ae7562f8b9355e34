"""ColossalAI's CPU accelerator, complete enough to train."""

from __future__ import annotations

import contextlib
import resource
from typing import Any

VERSIONS = ">=0.4.4,<0.4.5"
REASON = (
    "CpuAccelerator raises for streams, random state, devices and memory. Tensor parallelism seeds its ranks through "
    "them, ZeRO and Gemini ask for streams, so only plain data parallelism trains on a CPU."
)
UPSTREAM = "colossalai/accelerator/cpu_accelerator.py"


class Stream:
    """A CPU runs one thing after the other: there is nothing to wait for."""

    def wait_stream(self, *_: Any) -> None: ...

    def wait_event(self, *_: Any) -> None: ...

    def synchronize(self) -> None: ...

    def record_event(self, *_: Any) -> None: ...


def apply() -> None:
    """Make the CPU the accelerator, with the methods that training calls."""
    import torch
    from colossalai.accelerator import set_accelerator
    from colossalai.accelerator.cpu_accelerator import CpuAccelerator

    class TrainingCpu(CpuAccelerator):  # type: ignore[misc]
        def synchronize(self, device: Any = None) -> None: ...

        def set_device(self, device: Any = None) -> None: ...

        def set_stream(self, stream: Any) -> None: ...

        def empty_cache(self) -> None: ...

        def reset_peak_memory_stats(self, device: Any = None) -> None: ...

        def reset_max_memory_allocated(self, device: Any = None) -> None: ...

        def current_device(self) -> int:
            return 0

        def device_count(self) -> int:
            return 1

        def get_device_name(self, device: Any = None) -> str:
            return "cpu"

        def get_rng_state(self, device: Any = None) -> torch.Tensor:
            return torch.get_rng_state()

        def set_rng_state(self, new_state: torch.Tensor, device: Any = None) -> None:
            torch.set_rng_state(new_state)

        def manual_seed(self, seed: int) -> None:
            torch.manual_seed(seed)

        def manual_seed_all(self, seed: int) -> None:
            torch.manual_seed(seed)

        def memory_allocated(self, device: Any = None) -> int:
            return self.max_memory_allocated(device)

        def memory_reserved(self, device: Any = None) -> int:
            return self.max_memory_allocated(device)

        def max_memory_allocated(self, device: Any = None) -> int:
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

        def Stream(self, *_: Any, **__: Any) -> Stream:
            return Stream()

        def current_stream(self, device: Any = None) -> Stream:
            return Stream()

        def default_stream(self, device: Any = None) -> Stream:
            return Stream()

        def stream(self, stream_: Any) -> contextlib.AbstractContextManager[None]:
            return contextlib.nullcontext()

    set_accelerator(TrainingCpu())
