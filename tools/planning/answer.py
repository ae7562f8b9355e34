"""The answer of `tools plan` as plain data: what is printed, and what --json prints."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from common import platform as platforms
from common.memory import fit, host
from common.memory.duration import LINK_GB_PER_SECOND, UTILIZATION, duration
from common.memory.estimate import GIB, PARTS, estimate
from common.memory.job import Job, trained_parameters
from tools.planning.question import Question

PRECISION = 2  # decimals of a GiB


def answer(question: Question, utilization: float | None = None, price_per_hour: float | None = None) -> dict[str, Any]:
    """Everything about `question`. Memory in GiB, times in seconds; `price_per_hour` is of one device."""
    plan, job = question.plan, question.job
    trained, base = trained_parameters(job), host.base_parameters(job)
    work = _work(question)
    platform = plan.platform
    return {
        "recipe": plan.recipe_folder.name,
        "preset": plan.preset_name,
        "platform": plan.platform_id,
        "model": {
            "name": question.model,
            "parameters": base,
            "trained": trained,
            "trained_share": trained / (base + trained if job.lora else base),
        },
        "devices": {
            "nodes": job.nodes,
            "of_a_node": job.processes,
            "all": job.devices,
            "data_parallel": job.data_parallel,
            "tensor_parallel": job.tensor_parallel,
            "pipeline_parallel": job.pipeline_parallel,
            "sequence_parallel": job.sequence_parallel,
            "cards": -(-job.devices // platform.devices_per_card),
        },
        "memory": memory(job, device_memory(question)),
        "host": _host(job),
        "disk": _disk(question, work["tokens"]),
        "work": work,
        "time": _time(question, work["steps"], utilization, price_per_hour),
        "fits": _fits(question),
        "stated": plan.preset.memory.model_dump() if plan.preset.memory else None,
        "assumptions": _assumptions(question, utilization),
    }


def device_memory(question: Question) -> float | None:
    """GiB of one device; None where devices are processes on the host."""
    return question.plan.platform.memory_gib


def gib(size: float) -> float:
    return round(size / GIB, PRECISION)


def memory(job: Job, of_device: float | None) -> dict[str, Any]:
    """The fullest device: parts at loading, at the highest moment of a step, and at saving."""
    estimated = estimate(job)
    moments = {"load": estimated.load, "step": estimated.step, "save": estimated.save}
    return {
        "of_device": of_device,
        "reserve": None if of_device is None else gib(fit.reserve(of_device)),
        "highest_of_step": estimated.step.name,
        "peak": gib(estimated.peak.total),
        **{
            name: {"total": gib(moment.total), **{part: gib(moment.parts[part]) for part in PARTS}}
            for name, moment in moments.items()
        },
        "moments": {name: gib(moment.total) for name, moment in estimated.moments.items()},
    }


def _host(job: Job) -> dict[str, float]:
    needed = host.host(job)
    return {name: gib(getattr(needed, name)) for name in ("load", "step", "save", "peak")}


def _disk(question: Question, tokens: int | None) -> dict[str, float]:
    needed = host.disk(question.job, question.plan.settings, tokens)
    return {name: gib(getattr(needed, name)) for name in ("weights", "checkpoints", "model", "data", "total")}


def _work(question: Question) -> dict[str, Any]:
    train, batch, job = question.plan.settings.train, question.plan.batch, question.job
    steps = train.max_steps
    if steps is None and question.rows is not None:
        steps = max(1, int(question.rows * (train.num_train_epochs or 1) // batch.global_batch_size))
    step_tokens = batch.global_batch_size * job.length
    return {
        "micro_batch_size": batch.micro_batch_size,
        "gradient_accumulation_steps": batch.gradient_accumulation_steps,
        "data_parallel": batch.data_parallel,
        "global_batch_size": batch.global_batch_size,
        "tokens_of_a_step": step_tokens,
        "rows": question.rows,
        "steps": steps,
        "tokens": None if steps is None else steps * step_tokens,
    }


def _time(
    question: Question, steps: int | None, utilization: float | None, price_per_hour: float | None
) -> dict[str, Any] | None:
    peak = question.plan.platform.peak_bf16_tflops
    if peak is None:
        return None
    taken = duration(question.job, peak.value, utilization or UTILIZATION)
    seconds = None if steps is None else steps * taken.step
    hours = None if seconds is None else seconds / 3600
    tokens = question.plan.batch.global_batch_size * question.job.length
    cost = None if hours is None or price_per_hour is None else hours * question.job.devices * price_per_hour
    return {
        "step": taken.step,
        "computing": taken.computing,
        "moving": taken.moving,
        "tokens_per_second_of_a_device": tokens / taken.step / question.job.devices,
        "training": seconds,
        "price_per_hour": price_per_hour,
        "cost": None if cost is None else round(cost, 2),
    }


def _fits(question: Question) -> dict[str, Any]:
    job, of_device = question.job, device_memory(question)
    if of_device is None:
        here = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        needed = job.processes * estimate(job).peak.total + host.host(job).peak
        return {"fits": needed <= here, "free": gib(here - needed), "of": "this machine's memory", "instead": []}
    free = of_device - (estimate(job).peak.total + fit.reserve(of_device)) / GIB
    changes = [] if free >= 0 else fit.nearest(job, of_device, lambda key: _stated(question, key))
    instead = [_instead(change.options, change.job, change.same_result) for change in changes]
    return {
        "fits": free >= 0,
        "free": round(free, PRECISION),
        "of": "a device, beside the reserve",
        "instead": instead + ([] if free >= 0 else _larger(question)),
    }


def _instead(options: Sequence[str], job: Job, same_model: bool) -> dict[str, Any]:
    return {
        "options": list(options),
        "peak": gib(estimate(job).peak.total),
        "host": gib(host.host(job).peak),
        "same_model": same_model,
    }


def _larger(question: Question) -> list[dict[str, Any]]:
    """The preset's platform of the smallest memory that is enough."""
    named = {name: platforms.read(name).memory_gib for name in question.plan.preset.platforms}
    enough = [(size, name) for name, size in named.items() if size and fit.fits(question.job, size)]
    return [_instead([f"--platform {name}"], question.job, True) for _, name in sorted(enough)[:1]]


def _stated(question: Question, key: str) -> bool:
    section, name = key.split(".")
    settings = question.plan.settings
    return section in settings.model_fields_set and name in getattr(settings, section).model_fields_set


def _assumptions(question: Question, utilization: float | None) -> list[str]:
    job = question.job
    said = list(question.assumed)
    said.append(f"Every row has {job.length:,} tokens: the longest that data.max_length lets through.")
    said.append("Attention is a fused kernel that never holds its scores.")
    if (of_device := device_memory(question)) is not None:
        said.append(
            f"In reserve of a device: {fit.CONTEXT_GIB} GiB for the driver's context and the collectives' own "
            f"buffers, {fit.FRAGMENTATION:.0%} of {of_device:g} GiB for what the allocator cannot use."
        )
    if (peak := question.plan.platform.peak_bf16_tflops) is not None:
        how = "measured" if peak.measured else "claimed"
        said.append(
            f"Time: {utilization or UTILIZATION:.0%} of {peak.value:g} TFLOP/s a device ({how}: {peak.source}); "
            f"weights move at {LINK_GB_PER_SECOND:g} GB/s a device; training only, no loading, saving or evaluation."
        )
    said.append(
        "Host memory is what the processes hold, without the file cache that reading the weights fills "
        "(docs/plan.md compares it with published figures); disk for weights is nothing where they can be linked."
    )
    return said
