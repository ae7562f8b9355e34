"""Memory of one node's host, and room on its disk. Bytes."""

from __future__ import annotations

from dataclasses import dataclass

from common.memory.estimate import GIB, Held, hold
from common.memory.job import BYTES, Job, count, shapes, trained_parameters
from common.report.flops import model_size
from common.settings import Settings

TOKEN_BYTES = 12  # input_ids, labels and position_ids, int32 each


@dataclass(frozen=True)
class Host:
    """The memory that one node's processes take, without the file cache that reading the weights fills."""

    load: int
    step: int
    save: int

    @property
    def peak(self) -> int:
        return max(self.load, self.step, self.save)


@dataclass(frozen=True)
class Disk:
    weights: int
    """The weights as they come: nothing where they can be linked into the run directory."""
    checkpoints: int
    """Those that are kept, and one that is being written."""
    model: int
    """adapter/ and model/."""
    data: int
    """Prepared data; 0 where their number of tokens is not known."""

    @property
    def total(self) -> int:
        return self.weights + self.checkpoints + self.model + self.data


def host(job: Job) -> Host:
    """The host's memory of the node that needs most."""
    model_bytes = base_parameters(job) * job.weights_bytes
    held = hold(job, count(job, 0))
    processes = round(job.processes * job.framework.process_gib * GIB)
    offloaded = job.processes * (pinned_weights(job) + held.gradients + held.optimizer) if job.cpu_offload else 0
    one_tensor = job.model.vocab_size * job.model.hidden_size * job.weights_bytes
    loading = job.processes * (one_tensor if job.framework.loading == "layer" else model_bytes)
    return Host(
        load=processes + loading + (job.processes * pinned_weights(job) if job.cpu_offload else 0),
        step=processes + offloaded,
        save=processes + offloaded + job.processes * _to_write(job, held),
    )


def _to_write(job: Job, held: Held) -> int:
    """What one process brings to the host to write its part of a checkpoint."""
    trained = trained_parameters(job) // (job.tensor_parallel * job.pipeline_parallel * job.shares("optimizer"))
    return held.optimizer + trained * job.trained_bytes


def pinned_weights(job: Job) -> int:
    """A process's share of the weights in pinned memory, which torch gives out in powers of two."""
    counts = count(job, 0)
    size = 1 / 2 if job.quantized else job.weights_bytes
    layer = sum(
        _power_of_two(rows * columns * size / job.tensor_parallel / job.shares("weights"))
        for rows, columns in shapes(job.model).values()
    )
    table = _power_of_two((counts.embedding or counts.head) * job.weights_bytes / job.shares("weights"))
    tables = (counts.embedding > 0) + (counts.head > 0)
    adapters = counts.adapters * job.trained_bytes // job.shares("weights")
    return counts.layers * layer + tables * table + adapters


def _power_of_two(size: float) -> int:
    return 1 << max(0, int(size) - 1).bit_length()


def base_parameters(job: Job) -> int:
    """Weights of the whole model, without adapters."""
    return model_size(job.model).parameters


def disk(job: Job, settings: Settings, tokens: int | None) -> Disk:
    """What the run directory takes, on the node or the shared file system that has it."""
    base, trained = base_parameters(job), trained_parameters(job)
    kept = (settings.train.save_total_limit or 1) + 1
    merged = not job.lora or settings.export.merge is not False
    exported = BYTES[settings.export.dtype or settings.model.dtype or "bfloat16"]
    return Disk(
        weights=base * job.weights_bytes,
        checkpoints=kept * trained * (job.trained_bytes + job.optimizer_bytes),
        model=(base * exported if merged else 0) + (trained * job.trained_bytes if job.lora else 0),
        data=(tokens or 0) * TOKEN_BYTES,
    )
