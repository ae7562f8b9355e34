"""What a person asks for on the command line, and what recipe.yaml makes of it: settings, platform, processes."""

from __future__ import annotations

import glob
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import hardware, platform
from common.errors import UserError
from common.launchers import Cluster
from common.overrides import apply_settings, parse
from common.recipe import Preset, Recipe
from common.settings import Settings, stated

MODEL_NEEDED = "weights: pass --model with a folder or a hub id"
DATA_NEEDED = "data: pass --data with a file, a folder or a hub id"


@dataclass(frozen=True)
class Request:
    """What the person asked for on the command line."""

    recipe: Path
    preset: str = "smoke"
    platform: str | None = None
    model: str | None = None
    data: str | None = None
    assignments: tuple[str, ...] = ()
    output: Path | None = None
    nproc_per_node: int | None = None
    nnodes: int = 1
    node_rank: int = 0
    master_addr: str = "127.0.0.1"
    master_port: int = 29500


def check_utf8(request: Request) -> None:
    """Paths and values go to YAML and JSON files, which hold no other bytes."""
    given = {"--output": request.output, "--model": request.model, "--data": request.data}
    for option, value in [*given.items(), *(("--set", each) for each in request.assignments)]:
        if value is not None and re.search(r"[\ud800-\udfff]", str(value)):
            raise UserError(f"{option} is not UTF-8", found=ascii(str(value)))


def resolve_settings(request: Request, recipe: Recipe, preset: Preset) -> tuple[Settings, dict[str, Any]]:
    merged = stated(recipe)
    for section, values in stated(preset).items():
        merged.setdefault(section, {}).update(values)
    for section, key in (("model", "path"), ("data", "train"), ("data", "eval"), ("evaluate", "reading")):
        if (relative := merged.get(section, {}).get(key)) and (request.recipe / relative).exists():
            merged[section][key] = str(request.recipe / relative)
    changes, config_changes = parse(request.assignments)
    if request.data is not None:
        changes["data.train"] = request.data
    if "data.train" in changes and preset.data.eval is not None and "data.eval" not in changes:
        # The preset's held-out samples belong to its own data
        changes["data.eval"] = None
        changes.setdefault("data.eval_fraction", recipe.data.eval_fraction)
    if changes.get("data.eval") is not None:
        changes.setdefault("data.eval_fraction", None)  # nothing more needs to be held out
    if request.model is not None:
        changes["model.path"] = request.model
    if request.nproc_per_node is not None:
        changes["parallel.processes"] = request.nproc_per_node
    for key in ("model.path", "model.tokenizer", "data.train", "data.eval", "evaluate.reading"):
        if isinstance(changes.get(key), str):
            changes[key] = _absolute(changes[key])
    return apply_settings(merged, changes), config_changes


def choose_platform(request: Request, recipe: Recipe, preset: Preset, settings: Settings) -> str:
    """The platform's id. Raises UserError that names everything that is missing: weights, data and hardware."""
    needed = ((settings.model.path, MODEL_NEEDED), (settings.data.train, DATA_NEEDED))
    missing = [text for value, text in needed if value is None]
    try:
        platform_id = _platform(request, recipe, preset)
    except UserError as error:
        if not missing:
            raise
        missing.append(f"hardware: {error}")
    if missing:
        raise UserError(f"--preset {request.preset} needs " + "\n  and ".join(missing))
    return platform_id


def _absolute(place: str) -> str:
    """A path or a glob from the directory of the call; anything else (a hub id, `tiny`) as it is."""
    if Path(place).exists():
        return str(Path(place).resolve())
    return str(Path(place).absolute()) if glob.has_magic(place) else place


def _platform(request: Request, recipe: Recipe, preset: Preset) -> str:
    if request.platform is not None:
        platform.read(request.platform)
        if request.platform not in recipe.platforms:
            raise UserError(
                f"the recipe does not declare platform {request.platform}", expected=", ".join(recipe.platforms)
            )
        if request.platform not in preset.platforms:
            raise UserError(
                f"preset {request.preset} is not meant for platform {request.platform}",
                expected=", ".join(preset.platforms),
                hint="recipe.yaml says so under presets; a copy of the recipe may say otherwise",
            )
        chosen = request.platform
    elif anywhere := next((name for name in preset.platforms if platform.read(name).detect is None), None):
        chosen = anywhere  # every machine is this platform: smoke's
    else:
        chosen = hardware.choose(recipe, preset.platforms)
    lacking = [name for name in preset.requires if name not in platform.read(chosen).capabilities]
    if lacking:
        raise UserError(f"preset {request.preset} needs what platform {chosen} has not", found=", ".join(lacking))
    return chosen


def make_cluster(request: Request, settings: Settings) -> Cluster:
    if not 0 <= request.node_rank < request.nnodes:
        raise UserError(
            "--node-rank is from 0 to --nnodes less one", found=request.node_rank, expected=f"0 to {request.nnodes - 1}"
        )
    processes = settings.parallel.processes or 1
    if (world := processes * request.nnodes) % settings.parallel.model_parallel:
        raise UserError(
            "the processes are no multiple of tensor_parallel x pipeline_parallel x sequence_parallel",
            found=world,
            expected=f"a multiple of {settings.parallel.model_parallel}",
            hint="--nproc-per-node and --nnodes set the processes, parallel.* in --set the rest",
        )
    return Cluster(processes, request.nnodes, request.node_rank, request.master_addr, request.master_port)
