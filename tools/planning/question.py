"""What a person asks `tools plan` about: a plan and its job, without weights, data or hardware at hand."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from common import hardware, plan, platform
from common import recipe as recipes
from common.errors import UserError, did_you_mean
from common.memory import job as jobs
from common.memory import sizes
from common.memory.job import Job
from common.plan import Plan
from common.recipe import Preset, Recipe
from common.request import Request

SOME_DATA = "organization/data"  # stands for data that are not named yet: a hub id is not looked up
BYTES_OF_A_TOKEN = 4  # of English JSON Lines, in Llama 3's vocabulary; fewer in Chinese


@dataclass(frozen=True)
class Question:
    request: Request
    plan: Plan
    job: Job
    model: str
    assumed: tuple[str, ...]
    """What stands in for what was not said, as sentences."""
    rows: int | None
    """Rows of one epoch; None where nobody knows."""


def ask(request: Request, rows: int | None = None) -> Question:
    """Resolve `request`; a model, a platform and data that are not named are assumed, and said to be.

    Raises UserError for a wrong call, and for a recipe that does not state what its framework holds in memory.
    """
    recipe, document = recipes.read(request.recipe)
    if request.preset not in recipe.presets:
        hint = did_you_mean(request.preset, recipe.presets)
        raise UserError(f"there is no preset {request.preset!r}", expected=", ".join(recipe.presets), hint=hint)
    preset = recipe.presets[request.preset]
    if recipe.memory_model is None:
        raise UserError("the recipe does not state its memory_model", file=document.file, hint="see docs/plan.md")
    assumed = []
    given = vars(request)
    if request.platform is None:
        given = {**given, "platform": _platform(recipe, preset)}
        assumed.append(f"Platform {given['platform']}: the preset's; --platform names another.")
    if not _model(request, recipe, preset):
        if preset.reference_model is None:
            raise UserError(
                "no model is named", hint="--model meta-llama/Meta-Llama-3-8B; the weights need not be here"
            )
        given = {**given, "model": preset.reference_model}
        assumed.append(f"Model {preset.reference_model}: what the preset is meant for; --model names another.")
    no_data = request.data is None and preset.data.train is None and recipe.data.train is None
    if no_data and not any(each.startswith("data.train=") for each in request.assignments):
        given = {**given, "data": SOME_DATA}
    asked = Request(**given)
    planned = plan.make(asked)
    model = planned.settings.model.path or ""
    cluster = planned.cluster
    job = jobs.make(sizes.find(model), planned.settings, recipe.memory_model, cluster.nnodes, cluster.nproc_per_node)
    found, note = (rows, f"{rows:,} rows, as --rows says.") if rows else _rows(planned, job)
    return Question(asked, planned, job, model, (*assumed, *([note] if note else [])), found)


def _platform(recipe: Recipe, preset: Preset) -> str:
    """The one that run.sh would take here; on a machine that is none of them, the first that the preset names."""
    if anywhere := next((name for name in preset.platforms if platform.read(name).detect is None), None):
        return anywhere
    try:
        return hardware.choose(recipe, preset.platforms)
    except UserError:
        return preset.platforms[0]


def _model(request: Request, recipe: Recipe, preset: Preset) -> str | None:
    said = any(each.startswith("model.path=") for each in request.assignments)
    return request.model or ("set" if said else None) or preset.model.path or recipe.model.path


def _rows(planned: Plan, job: Job) -> tuple[int | None, str | None]:
    """Rows of one epoch: counted where the run has prepared its data, estimated from local files' size."""
    try:
        counted = json.loads((planned.run / "data" / "meta.json").read_text(encoding="utf-8"))
        return int(counted["train"]["rows"]), f"Rows counted in the prepared data of {planned.run}."
    except (OSError, ValueError, KeyError, TypeError):
        pass
    source = Path(planned.settings.data.train or "")
    files = [source] if source.is_file() else [each for each in source.glob("*") if each.is_file()]
    size = sum(file.stat().st_size for file in files) if source.exists() else 0
    if not size:
        return None, None
    tokens = size // BYTES_OF_A_TOKEN
    return max(1, tokens // job.length), (
        f"Rows estimated: {tokens:,} tokens ({BYTES_OF_A_TOKEN} bytes each), in full rows; --rows says it better."
    )
