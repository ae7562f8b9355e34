"""Many answers at once: memory over devices, length and rows at once."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from common.errors import UserError, did_you_mean
from common.memory import fit
from common.memory.estimate import estimate
from common.memory.job import Job
from tools.planning.answer import device_memory, gib
from tools.planning.question import Question

AXES = {"devices": "processes", "length": "length", "batch": "micro_batch_size"}
MOST = 10000


def axes(stated: Sequence[str]) -> dict[str, list[int]]:
    """{"devices": [2, 4]} from ["devices=2,4"]. Raises UserError for what is no axis or no list of numbers."""
    found: dict[str, list[int]] = {}
    for each in stated:
        name, _, values = each.partition("=")
        if name not in AXES:
            hint = did_you_mean(name, AXES)
            raise UserError("--sweep knows no such axis", found=name, expected=", ".join(AXES), hint=hint)
        if name in found:
            raise UserError(f"--sweep {name} is given twice", hint="separate the values by commas")
        words = [word for word in values.split(",") if word]
        if not words or not all(word.isdecimal() and int(word) > 0 for word in words):
            raise UserError(f"--sweep {name} takes whole numbers above 0", found=values, expected=f"{name}=2,4,8")
        found[name] = [int(word) for word in words]
    if (count := len(list(itertools.product(*found.values())))) > MOST:
        raise UserError("the sweep has too many points", found=count, expected=f"at most {MOST}")
    return found


def points(question: Question, swept: dict[str, list[int]]) -> list[dict[str, Any]]:
    """Peak memory of every combination, GiB; what cannot be shared out evenly is left out, with why."""
    of_device = device_memory(question)
    found: list[dict[str, Any]] = []
    own = {axis: [getattr(question.job, field)] for axis, field in AXES.items()}
    for values in itertools.product(*({**own, **swept}[axis] for axis in AXES)):
        job = dataclasses.replace(question.job, **dict(zip(AXES.values(), values, strict=True)))
        point: dict[str, Any] = dict(zip(AXES, values, strict=True))
        together = job.tensor_parallel * job.pipeline_parallel * job.sequence_parallel
        if job.devices % together:
            found.append({**point, "problem": f"no multiple of the {together} ranks that hold one model"})
            continue
        found.append({**point, **_point(job, of_device)})
    return found


def _point(job: Job, of_device: float | None) -> dict[str, Any]:
    estimated = estimate(job)
    return {
        "global_batch_size": job.micro_batch_size * job.gradient_accumulation_steps * job.data_parallel,
        "peak": gib(estimated.peak.total),
        "at": estimated.peak.name,
        "fits": None if of_device is None else fit.fits(job, of_device, estimated),
    }


def show(found: list[dict[str, Any]], question: Question, out: Console) -> None:
    of_device = device_memory(question)
    size = "" if of_device is None else f": {of_device:g} GiB, {gib(fit.reserve(of_device)):g} in reserve"
    plan = question.plan
    out.print(Text(f"{plan.recipe_folder.name}, preset {plan.preset_name}, {plan.platform_id}{size}", style="bold"))
    nodes = "" if question.job.nodes == 1 else f"; on each of {question.job.nodes} nodes"
    out.print(f"{question.model}: peak memory of a device in GiB{nodes}")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("devices", "length", "batch", "global batch", "GiB", "highest at", "fits"):
        table.add_column(title, justify="right", header_style="dim")
    for point in found:
        axes = [f"{point[axis]:,}" for axis in AXES]
        if "problem" in point:
            table.add_row(*axes, "", "", point["problem"], "", style="dim")
            continue
        fits = {True: "yes", False: "no", None: ""}[point["fits"]]
        style = "red" if point["fits"] is False else ""
        table.add_row(*axes, str(point["global_batch_size"]), f"{point['peak']:.2f}", point["at"], fits, style=style)
    out.print(table)
