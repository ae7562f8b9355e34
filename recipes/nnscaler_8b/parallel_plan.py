"""The parallel plan, for the report: what is split how, and what autodist predicts."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from common.files import write_json

OPERATION = re.compile(r"name=(\w+)")
TABLE_ROWS = 16


def write_plan(config: dict[str, Any], plan: dict[str, Any], folder: Path, world_size: int) -> None:
    """Write FOLDER/section.json. `plan` holds the ComputeConfig's pas_config and plan_ngpus."""
    policy, share = config["trainer"]["pas_policy"], plan["plan_ngpus"]
    copies = world_size // share
    text = [f"Policy {policy}: {share} of {world_size} devices hold one copy of the model, so there are {copies}."]
    if config["compute_config"]["use_zero"] and copies > 1:
        text.append(f"ZeRO: optimizer state and fp32 masters are shared over the {copies} copies.")
    section: dict[str, Any] = {"title": "The parallel plan", "text": text}
    saved = Path(config["autodist"]) / "plan.json"
    if policy == "autodist" and saved.exists():
        searched = json.loads(saved.read_text(encoding="utf-8"))
        text += predictions(searched, saved)
        section |= {"head": ["Operation", "Annotation", "Split", "Times", "Predicted ms"], "rows": operations(searched)}
    elif "pipeline_nstages" in plan["pas_config"]:
        nstages, nmicros = plan["pas_config"]["pipeline_nstages"], plan["pas_config"]["pipeline_nmicros"]
        text.append(f"Pipeline: {nstages} stages, {nmicros} micro-batches under way in a step.")
    write_json(folder / "section.json", section)


def predictions(searched: dict[str, Any], file: Path) -> list[str]:
    """What autodist expects of each stage. Its memory counts no tensor below 0.5 MiB."""
    stages = zip(searched["stage_mems"], searched["stage_all_times"], searched["stage_comp_times"], strict=True)
    lines = [
        f"Stage {number}: {memory:.2f} GiB a device, {1000 * all_time:.1f} ms a micro-batch, of which "
        f"{1000 * compute:.1f} ms compute and the rest communicate."
        for number, (memory, all_time, compute) in enumerate(stages, 1)
    ]
    groups = len(searched["desc"]["recompute_groups"])
    return [
        "Predicted by autodist from operators that it timed on this machine; tensors below 0.5 MiB count nothing.",
        *lines,
        f"Computed again in the backward pass: {groups} groups of operators. The whole plan is in {file.name}.",
    ]


def operations(searched: dict[str, Any]) -> list[list[str]]:
    """Operators that do the same and are split the same, in one row; the slowest first."""
    found: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for stage in searched["desc"]["spmd_descs"]:
        for (node, annotation, _, partition), compute, communicate in stage["analysis"]["dimops_split_info"]:
            name = OPERATION.search(node)
            found[name[1] if name else node, annotation, split_in_words(partition)].append(compute + communicate)
    rows = sorted(found.items(), key=lambda item: -sum(item[1]))[:TABLE_ROWS]
    return [[*key, str(len(times)), f"{1000 * sum(times):.2f}"] for key, times in rows]


def split_in_words(partition: str) -> str:
    """autodist's OpPartition((DIMENSION,), (PARTS,)), where -1 stands for no dimension."""
    found = re.fullmatch(r"OpPartition\(\('?(-?\w+)'?,\), \((\d+),\)\)", partition)
    if found is None:
        return partition
    dimension, number = found.groups()
    if number == "1":
        return "whole"
    return f"on each of {number}" if dimension == "-1" else f"{dimension} in {number}"
