"""How long a run takes, and the assumptions that this rests on."""

from __future__ import annotations

from dataclasses import dataclass

from common.memory.estimate import Held, hold
from common.memory.job import Job, count, trained_parameters
from common.report.flops import flops_per_token, model_size

# Published for Llama 3 8B at 8192 tokens and more, by the formula of common.report.flops: 48 % on Ascend 910B
# (MindFormers: 2,581 tokens/s), 47 % on BI-V150 (ColossalAI: 20.9 s a step), 41 % on H100 (nnScaler)
UTILIZATION = 0.40
# A PCIe 4.0 x16 slot moves 31.5 GB/s at most; half of that is what copies and collectives over it get
LINK_GB_PER_SECOND = 16.0


@dataclass(frozen=True)
class Duration:
    """Seconds of one optimizer step. Computing and moving weights overlap: the longer one counts."""

    computing: float
    moving: float
    flops: float
    """Model FLOPs of one step, all devices."""

    @property
    def step(self) -> float:
        return max(self.computing, self.moving)


def duration(job: Job, peak_tflops: float, utilization: float = UTILIZATION) -> Duration:
    """One optimizer step on devices of `peak_tflops` (10^12 FLOP/s each), of which `utilization` is reached.

    Counts every token of full rows. `moving` is what weights take to come from the host where they live
    there, and to be gathered from the other devices where these share them, twice a micro-batch.
    """
    rows = job.micro_batch_size * job.gradient_accumulation_steps * job.data_parallel
    adapter = trained_parameters(job) if job.lora else 0
    each = flops_per_token(model_size(job.model), job.length, frozen=job.lora, adapter=adapter)
    flops = rows * job.length * each
    held = hold(job, count(job, 0))
    bytes_moved = 2 * job.gradient_accumulation_steps * _moved(job, held)
    return Duration(
        computing=flops / (job.devices * peak_tflops * 1e12 * utilization),
        moving=bytes_moved / (LINK_GB_PER_SECOND * 1e9),
        flops=flops,
    )


def _moved(job: Job, held: Held) -> float:
    """Bytes that one device gets in one pass over the layers."""
    from_host = held.weights if job.cpu_offload else 0
    others = job.shares("weights") - 1
    return from_host + (held.weights * others if job.gathers_weights else 0)
