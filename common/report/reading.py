"""A run directory, read: what is there, as typed as it is written, whether or not the run is finished."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pydantic

from common import golden, platform, recipe
from common.errors import UserError
from common.evaluation import parameters, result
from common.metrics import FIELDS
from common.platform import Platform
from common.recipe import Recipe
from common.report import flops
from common.report.figures import Section
from common.report.flops import ModelSize
from common.schema import validate
from common.weights.config import CONFIG_FILE, read_hugging_face
from common.yaml_file import load

PLAN = "plan.yaml"
METRICS = "metrics.jsonl"
DONE = "done.json"
META = "data/meta.json"
SECTION = "section.json"

Row = dict[str, float]
T = TypeVar("T")


class _Part(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="ignore", frozen=True)


class Devices(_Part):
    per_node: int = pydantic.Field(ge=1)
    nodes: int = pydantic.Field(ge=1)


class Batch(_Part):
    micro_batch_size: int
    gradient_accumulation_steps: int
    data_parallel: int
    global_batch_size: int


class PlanFile(_Part):
    """plan.yaml: what the report reads of it."""

    recipe: str
    preset: str
    platform: str
    devices: Devices
    batch: Batch
    settings: dict[str, dict[str, Any]]
    config: dict[str, Any]
    environment: dict[str, str] = {}
    python: str | None = None
    stages: dict[str, list[list[str]]]
    machine: dict[str, Any] = {}
    commit: str | None = None
    versions: dict[str, str] = {}


@dataclass(frozen=True)
class StageState:
    name: str
    done: bool
    seconds: float | None


@dataclass(frozen=True)
class Run:
    """What a run directory holds. What is not there yet is None or empty."""

    folder: Path
    plan: PlanFile
    rows: list[Row]
    """metrics.jsonl."""
    cut_short: bool
    """Whether the last line of metrics.jsonl was cut by a kill."""
    stages: list[StageState]
    evaluation: list[result.Result]
    data: dict[str, Any] | None
    """data/meta.json."""
    sections: list[Section]
    """What the stages' section.json say, in the stages' order."""
    size: ModelSize | None
    """None where the weights are not described by a config.json."""
    adapter_parameters: int | None
    adapter: Path | None
    model: Path | None
    recipe: Recipe | None
    """None where this checkout has no such recipe."""
    platform: Platform | None


def read(folder: Path) -> Run:
    """Read a run directory; nothing is written.

    Raises UserError for a folder that is no run directory and for a file in it that is broken.
    """
    if not folder.is_dir():
        raise UserError("there is no such run directory", file=folder, hint="runs/<recipe>/<preset> is where runs are")
    if not (folder / PLAN).is_file():
        found = ", ".join(sorted(path.name for path in folder.iterdir())[:6]) or "an empty folder"
        raise UserError(f"is no run directory: it has no {PLAN}", file=folder, found=found)
    plan = validate(PlanFile, load(folder / PLAN))
    rows, cut_short = read_metrics(folder / METRICS)
    return Run(
        folder=folder,
        plan=plan,
        rows=rows,
        cut_short=cut_short,
        stages=[_stage(folder, name) for name in plan.stages],
        evaluation=_evaluation(folder / result.FILE),
        data=_json(folder / META),
        sections=[section for name in plan.stages if (section := _section(folder / name / SECTION))] + _golden(folder),
        size=_known(lambda: _size(folder)),
        adapter_parameters=_known(lambda: parameters.of_adapter(folder / "adapter")),
        adapter=_folder(folder / "adapter"),
        model=_folder(folder / "model"),
        recipe=_known(lambda: recipe.read(recipe.find(plan.recipe))[0]),
        platform=_known(lambda: platform.read(plan.platform)),
    )


def read_metrics(file: Path) -> tuple[list[Row], bool]:
    """The rows of metrics.jsonl, and whether a kill cut its last line, which is then left out.

    Raises UserError for a broken line before the last, for a row without a field, and for steps that do
    not ascend.
    """
    if not file.exists():
        return [], False
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UserError("is not UTF-8", file=file, found=f"byte {error.object[error.start]:#04x}") from None
    rows: list[Row] = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            if number == len(lines):
                return rows, True
            hint = "training wrote this file: start the run again with --from train"
            raise UserError("is not a JSON object", file=file, line=number, found=line[:80], hint=hint) from None
        rows.append(_checked(row, rows[-1]["step"] if rows else 0, file, number))
    return rows, False


def _checked(row: Any, step_before: float, file: Path, line: int) -> Row:
    if not isinstance(row, dict):
        raise UserError("is not a JSON object", file=file, line=line, found=str(row)[:80])
    for name in FIELDS:
        if isinstance(row.get(name), bool) or not isinstance(row.get(name), int | float):
            found = repr(row[name]) if name in row else f"a row with {', '.join(row) or 'nothing'}"
            raise UserError(f"{name} is not a number", file=file, line=line, found=found)
    if not row["step"] > step_before:
        raise UserError("steps do not ascend", file=file, line=line, found=row["step"], expected=f"above {step_before}")
    return row


def _stage(folder: Path, name: str) -> StageState:
    try:
        done = json.loads((folder / name / DONE).read_text(encoding="utf-8"))
        return StageState(name, True, float(done["seconds"]))
    except (OSError, ValueError, KeyError, TypeError):
        return StageState(name, False, None)


def _evaluation(file: Path) -> list[result.Result]:
    if not file.exists():
        return []
    try:
        return result.read(file)
    except (ValueError, TypeError) as error:
        raise UserError(
            "is not an evaluation", file=file, found=str(error), hint="run it again with --from evaluate"
        ) from None


def _json(file: Path) -> dict[str, Any] | None:
    if not file.exists():
        return None
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError("is not JSON", file=file, found=str(error)) from None
    if not isinstance(value, dict):
        raise UserError("holds no JSON object", file=file, found=type(value).__name__)
    return value


def _golden(folder: Path) -> list[Section]:
    """This run's losses beside the reference curve, where it was trained on the golden batches."""
    content = _json(folder / golden.FILE)
    if content is None:
        return []
    try:
        return [Section.model_validate(golden.section(content))]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError("is not a comparison with the golden curve", file=folder / golden.FILE, found=error) from None


def _section(file: Path) -> Section | None:
    content = _json(file)
    if content is None:
        return None
    try:
        return Section.model_validate(content)
    except pydantic.ValidationError as error:
        raise UserError("is not a section of a report", file=file, found=str(error.errors()[0]["msg"])) from None


def _size(folder: Path) -> ModelSize | None:
    for name in ("weights", "model"):
        if (folder / name / CONFIG_FILE).is_file():
            return flops.model_size(read_hugging_face(folder / name))
    return None


def _folder(path: Path) -> Path | None:
    return path if path.is_dir() and any(path.iterdir()) else None


def _known(look: Callable[[], T]) -> T | None:
    """What `look` finds, None where this machine has not got it: a run may come from elsewhere."""
    try:
        return look()
    except UserError:
        return None
