"""The plan: recipe, preset, platform and overrides, resolved to exact commands and arithmetic."""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import environment, launchers, platform
from common import recipe as recipes
from common.environment import ROOT, Spec
from common.errors import UserError, did_you_mean
from common.files import fingerprint
from common.launchers import Cluster
from common.overrides import apply_config, laid_over
from common.recipe import Preset, Recipe, Stage
from common.references import Values, flatten
from common.request import Request, check_utf8, choose_platform, make_cluster, resolve_settings
from common.settings import Settings
from common.yaml_file import load

VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z_0-9]*(?::-[\w./-]*)?)\}")  # ${NAME} or, as in a shell, ${NAME:-default}


@dataclass(frozen=True)
class PlannedStage:
    name: Stage
    commands: tuple[tuple[str, ...], ...]
    """Each exactly as it runs."""
    launched: bool
    """Whether every node runs it."""
    needs_recipe_environment: bool
    publishes: tuple[str, ...]
    digest: str
    """Changes when the commands, the configuration or an earlier stage do."""


@dataclass(frozen=True)
class Batch:
    """The arithmetic of one optimizer step."""

    micro_batch_size: int
    gradient_accumulation_steps: int
    data_parallel: int

    @property
    def global_batch_size(self) -> int:
        """Rows of one optimizer step."""
        return self.micro_batch_size * self.gradient_accumulation_steps * self.data_parallel


@dataclass(frozen=True)
class Plan:
    recipe_folder: Path
    recipe: Recipe
    preset_name: str
    preset: Preset
    platform_id: str
    run: Path
    cluster: Cluster
    settings: Settings
    config: dict[str, Any]
    """The framework's configuration, complete."""
    environment: dict[str, str]
    """Variables of every command; a ${NAME} in a value is that variable's own value."""
    stages: tuple[PlannedStage, ...]
    spec: Spec
    """The recipe's environment."""
    identity: dict[str, Any]
    """What makes this run this run, as flat keys: compared when a run is continued."""

    @property
    def platform(self) -> platform.Platform:
        return platform.read(self.platform_id)

    @property
    def batch(self) -> Batch:
        train = self.settings.train
        data_parallel = self.cluster.world_size // self.settings.parallel.model_parallel
        return Batch(train.micro_batch_size or 1, train.gradient_accumulation_steps or 1, data_parallel)

    @property
    def config_file(self) -> Path:
        return self.run / "train" / "config.yaml"


def make(request: Request) -> Plan:
    """Resolve `request`. Touches nothing. Raises UserError for everything that cannot be as asked."""
    check_utf8(request)
    recipe, _ = recipes.read(request.recipe)
    if request.preset not in recipe.presets:
        hint = did_you_mean(request.preset, recipe.presets)
        raise UserError(f"there is no preset {request.preset!r}", expected=", ".join(recipe.presets), hint=hint)
    preset = recipe.presets[request.preset]
    settings, config_changes = resolve_settings(request, recipe, preset)
    platform_id = choose_platform(request, recipe, preset, settings)
    cluster = make_cluster(request, settings)
    run = (request.output or ROOT / "runs" / request.recipe.name / request.preset).absolute()
    spec = environment_spec(request.recipe, recipe, platform_id)

    values = _values(request.recipe, recipe, settings, platform_id, run)
    config_source = load(request.recipe / recipe.config)
    stated = config_source.value
    if over := recipe.platforms[platform_id].config:
        stated = laid_over(stated, load(request.recipe / over).value)
    config = apply_config(values.fill(stated), config_changes, config_source.file)
    commands = {name: _commands(name, recipe, values, spec, cluster, run) for name in recipe.stages}
    # Every node finds the same digests, wherever node 0 is this time
    anywhere = dataclasses.replace(cluster, node_rank=0, master_addr="", master_port=0)
    digested = {name: _commands(name, recipe, values, spec, anywhere, run) for name in recipe.stages}
    _check_used(values, settings, request.recipe)

    identity: dict[str, Any] = {
        **flatten(settings.model_dump(exclude_unset=True)),
        **{f"config.{key}": value for key, value in sorted(config_changes.items())},
        "platform": platform_id,
        "processes": cluster.nproc_per_node,
        "nodes": cluster.nnodes,
        "pins": spec.digest(),
        **_inputs(settings),
    }
    return Plan(
        recipe_folder=request.recipe,
        recipe=recipe,
        preset_name=request.preset,
        preset=preset,
        platform_id=platform_id,
        run=run,
        cluster=cluster,
        settings=settings,
        config=config,
        environment=_environment(platform_id),
        stages=tuple(_stages(recipe, commands, digested, config, identity, run)),
        spec=spec,
        identity=identity,
    )


def environment_spec(folder: Path, recipe: Recipe, platform_id: str) -> Spec:
    """The recipe's environment on a platform. Raises UserError when the recipe does not name that platform."""
    entry = recipe.platforms[platform_id]
    requirements = folder / entry.requirements
    if not requirements.exists():
        raise UserError("the requirements file is missing", file=requirements)
    framework = platform.read(platform_id).frameworks.get(recipe.framework)
    if framework is None:
        raise UserError(f"platform {platform_id} says nothing of the framework {recipe.framework}")
    return Spec(
        requirements=requirements,
        minimum=environment.parse_version(recipe.python.min),
        maximum=environment.parse_version(recipe.python.max),
        prefer=environment.parse_version(recipe.python.prefer),
        system_packages=framework.system_packages,
        vendor=tuple(name for name, wheels in framework.wheels.items() if wheels.vendor),
        indexes=tuple(wheels.index for wheels in framework.wheels.values() if wheels.index),
        sources=tuple(_sources(recipe)),
    )


def _sources(recipe: Recipe) -> Iterator[environment.Source]:
    for name, entry in recipe.sources.items():
        source = environment.Source(name, entry.url, entry.variable)
        try:
            source.given()
        except environment.EnvironmentFailure as failure:
            raise UserError(str(failure)) from None
        yield source


def _values(folder: Path, recipe: Recipe, settings: Settings, platform_id: str, run: Path) -> Values:
    framework = platform.read(platform_id).frameworks[recipe.framework]
    return Values(
        {
            **flatten(settings.model_dump(exclude_unset=True)),
            "steps": settings.train.max_steps or -1,
            "run": str(run),
            "recipe": str(folder),
            "platform.id": platform_id,
            "platform.device": framework.device,
            "platform.plugin": framework.plugin,
            "platform.backend": framework.backend,
            "platform.devices_per_card": platform.read(platform_id).devices_per_card,
            "platform.patches": recipe.platforms[platform_id].patches,
        }
    )


def _commands(
    name: Stage, recipe: Recipe, values: Values, spec: Spec, cluster: Cluster, run: Path
) -> tuple[tuple[str, ...], ...]:
    # What a stage writes becomes STAGE/ when it is done; training writes checkpoints, which are resumed instead
    local = values.also(stage=str(run / f"{name}.partial"))
    commands = []
    for command in recipe.stages[name].commands:
        words = local.words(command.run)
        python = str(environment.light_spec().python() if command.environment == "light" else spec.python())
        if command.launch:
            words = [*launchers.launch(recipe.launcher, python, cluster, run / "logs"), *words]
        elif words[0] == "python":
            words = [python, *words[1:]]
        commands.append(tuple(words))
    return tuple(commands)


def _check_used(values: Values, settings: Settings, folder: Path) -> None:
    """A setting that nothing refers to would be ignored in silence: that is how 3072 tokens became 512."""
    planner_only = {"parallel.processes", "model.kind", "train.max_steps", "train.num_train_epochs"}
    for key in flatten(settings.model_dump(exclude_unset=True)):
        if key not in values.used and key not in planner_only:
            raise UserError(
                f"{key} is stated, but no command and no configuration refers to ${{{key}}}",
                file=folder / "recipe.yaml",
                hint="refer to it where it belongs, or take it out",
            )


def _environment(platform_id: str) -> dict[str, str]:
    inherited = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and path != str(ROOT)]
    variables = {"PYTHONPATH": os.pathsep.join([str(ROOT), *inherited]), "PYTHONUNBUFFERED": "1"}
    variables.update(platform.read(platform_id).environment)
    order = platform.read(platform_id).device_order
    if order:
        name, _, value = order.partition("=")
        variables[name] = value
    return variables


def expand(value: str) -> str:
    """`value` with ${NAME} and ${NAME:-default} replaced by what NAME is now, or by the default, or by nothing."""

    def now(match: re.Match[str]) -> str:
        name, _, default = match[1].partition(":-")
        return os.environ.get(name) or default

    return VARIABLE.sub(now, value)


def movable(text: str, run: Path) -> str:
    """`text` without the places of the run directory, the environments and the project: moved, it is the same run."""
    return text.replace(str(run), "RUN").replace(str(environment.home()), "ENVIRONMENTS").replace(str(ROOT), "PROJECT")


def _inputs(settings: Settings) -> dict[str, str]:
    """The content of local inputs, so that a run is not continued on other data."""
    paths = {"model.path": settings.model.path, "model.tokenizer": settings.model.tokenizer}
    paths |= {"data.train": settings.data.train, "data.eval": settings.data.eval}
    paths |= {"evaluate.reading": settings.evaluate.reading}
    return {f"content of {key}": found for key, path in paths.items() if path and (found := _content(path))}


def _content(place: str) -> str | None:
    """What a path or a glob stands for now; None for what is not on this machine."""
    if Path(place).exists():
        return fingerprint(Path(place))
    files = sorted(glob.glob(place, recursive=True)) if glob.has_magic(place) else []  # noqa: PTH207
    return " ".join(fingerprint(Path(file)) for file in files) or None


def _stages(
    recipe: Recipe,
    commands: dict[Stage, tuple[tuple[str, ...], ...]],
    digested: dict[Stage, tuple[tuple[str, ...], ...]],
    config: dict[str, Any],
    identity: dict[str, Any],
    run: Path,
) -> list[PlannedStage]:
    planned: list[PlannedStage] = []
    inputs = {
        key: value for key, value in identity.items() if key.startswith("content of") or key in ("pins", "platform")
    }
    before = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
    for name in recipe.stages:
        spec = recipe.stages[name]
        content: list[Any] = [before, digested[name]]
        if name == "train":
            content.append(config)
        text = movable(json.dumps(content, sort_keys=True, ensure_ascii=False), run)
        before = hashlib.sha256(text.encode()).hexdigest()
        planned.append(
            PlannedStage(
                name=name,
                commands=commands[name],
                launched=any(command.launch for command in spec.commands),
                needs_recipe_environment=any(command.environment == "recipe" for command in spec.commands),
                publishes=tuple(spec.publishes),
                digest=before,
            )
        )
    return planned
