"""Whether a job fits its devices, with what is kept in reserve, and the nearest settings that do."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from common.memory.estimate import GIB, Estimate, estimate
from common.memory.job import Job

# The driver's context and the collective library's own buffers: 1 to 1.5 GiB as a rule
CONTEXT_GIB = 1.25
# What an allocator loses between blocks of different sizes
FRAGMENTATION = 0.04

SHORTEST = 512
MOST_DEVICES = 8  # times as many as asked for


def reserve(memory_gib: float) -> int:
    """Bytes of a device of that size that no part of the estimate may use."""
    return round((CONTEXT_GIB + FRAGMENTATION * memory_gib) * GIB)


def fits(job: Job, memory_gib: float, estimated: Estimate | None = None) -> bool:
    """Whether the fullest device, at its peak, leaves the reserve free."""
    peak = (estimated or estimate(job)).peak.total
    return peak + reserve(memory_gib) <= memory_gib * GIB


@dataclass(frozen=True)
class Change:
    """Settings that make a job fit, as a person would type them."""

    options: tuple[str, ...]
    job: Job
    same_result: bool
    """Whether the model that is trained is the same, up to rounding."""


Step = Callable[[Job], Iterator[tuple[Job, tuple[str, ...]]]]


def nearest(job: Job, memory_gib: float, can_set: Callable[[str], bool], most: int = 4) -> list[Change]:
    """Settings near those of `job` that fit: first those that train the same model on the same devices.

    `can_set` says whether the recipe states a key. One kind of change is tried before two together.
    """
    free = [step for step, keys in SAME if all(map(can_set, keys))]
    other = [_more_devices, *(step for step, keys in OTHER if all(map(can_set, keys)))]
    found: list[Change] = []
    for steps, same in ((free, True), (other, False)):
        found += _first_that_fit(steps, job, memory_gib, same)
    if not found:
        pairs = [
            _both(first, second) for at, first in enumerate([*free, *other]) for second in [*free, *other][at + 1 :]
        ]
        found = _first_that_fit(pairs, job, memory_gib, False)
    if not found:
        everything = _all(free)
        found = _first_that_fit([_both(everything, step) for step in other], job, memory_gib, False)
    return found[:most]


def _first_that_fit(steps: list[Step], job: Job, memory_gib: float, same: bool) -> list[Change]:
    found = []
    for step in steps:
        for changed, options in step(job):
            if fits(changed, memory_gib):
                found.append(Change(options, changed, same))
                break
    return found


def _checkpointing(job: Job) -> Iterator[tuple[Job, tuple[str, ...]]]:
    if not job.checkpointing:
        yield dataclasses.replace(job, checkpointing=True), ("--set train.gradient_checkpointing=true",)


def _recompute_all(job: Job) -> Iterator[tuple[Job, tuple[str, ...]]]:
    if job.recomputed_layers:
        layers = -(-job.model.num_hidden_layers // job.pipeline_parallel)
        each = (layers,) * job.pipeline_parallel
        yield dataclasses.replace(job, recomputed_layers=each), (f"--set train.recomputed_layers={list(each)}",)


def _smaller_batch(job: Job) -> Iterator[tuple[Job, tuple[str, ...]]]:
    """Fewer rows at once and more accumulation: the global batch stays."""
    micro, accumulation = job.micro_batch_size, job.gradient_accumulation_steps
    while micro > 1 and micro % 2 == 0:
        micro, accumulation = micro // 2, accumulation * 2
        options = f"--set train.micro_batch_size={micro}", f"--set train.gradient_accumulation_steps={accumulation}"
        yield dataclasses.replace(job, micro_batch_size=micro, gradient_accumulation_steps=accumulation), options


def _reshard(job: Job) -> Iterator[tuple[Job, tuple[str, ...]]]:
    if not job.reshard_after_forward:
        yield dataclasses.replace(job, reshard_after_forward=True), ("--set parallel.reshard_after_forward=true",)


def _zero(job: Job) -> Iterator[tuple[Job, tuple[str, ...]]]:
    for stage in range(job.zero_stage + 1, 4):
        yield dataclasses.replace(job, zero_stage=stage), (f"--set parallel.zero_stage={stage}",)


def _offload(job: Job) -> Iterator[tuple[Job, tuple[str, ...]]]:
    if not job.cpu_offload:
        yield dataclasses.replace(job, cpu_offload=True), ("--set parallel.cpu_offload=true",)


def _more_devices(job: Job) -> Iterator[tuple[Job, tuple[str, ...]]]:
    times = 2
    while times <= MOST_DEVICES:
        devices = job.processes * times
        if devices <= 8:
            yield dataclasses.replace(job, processes=devices), (f"--devices {devices}",)
        else:
            nodes = job.nodes * -(-devices // 8)
            yield (
                dataclasses.replace(job, processes=8, nodes=nodes),
                ("--devices 8", f"--nnodes {nodes}"),
            )
        times *= 2


def _shorter(job: Job) -> Iterator[tuple[Job, tuple[str, ...]]]:
    length = job.length // 2
    while length >= SHORTEST:
        yield dataclasses.replace(job, length=length), (f"--set data.max_length={length}",)
        length //= 2


def _quantize(job: Job) -> Iterator[tuple[Job, tuple[str, ...]]]:
    if job.lora and not job.quantized:
        yield dataclasses.replace(job, quantized=True), ("--set model.quantized=true",)


def _both(first: Step, second: Step) -> Step:
    def steps(job: Job) -> Iterator[tuple[Job, tuple[str, ...]]]:
        for once, options in first(job):
            for twice, more in second(once):
                yield twice, (*options, *more)

    return steps


def _all(steps: list[Step]) -> Step:
    """The furthest of each, together."""

    def together(job: Job) -> Iterator[tuple[Job, tuple[str, ...]]]:
        options: tuple[str, ...] = ()
        for step in steps:
            for changed, more in list(step(job))[-1:]:
                job, options = changed, (*options, *more)
        yield job, options

    return together


SAME: tuple[tuple[Step, tuple[str, ...]], ...] = (
    (_checkpointing, ("train.gradient_checkpointing",)),
    (_recompute_all, ("train.recomputed_layers",)),
    (_smaller_batch, ("train.micro_batch_size", "train.gradient_accumulation_steps")),
    (_reshard, ("parallel.reshard_after_forward",)),
    (_zero, ("parallel.zero_stage",)),
    (_offload, ("parallel.cpu_offload",)),
)
OTHER: tuple[tuple[Step, tuple[str, ...]], ...] = (
    (_shorter, ("data.max_length",)),
    (_quantize, ("model.quantized",)),
)
