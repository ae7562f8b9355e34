"""A plan as a bash script: what --dry-run prints. Pasting it runs the recipe."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import yaml

from common.environment import ROOT, light_spec
from common.plan import VARIABLE, Plan, PlannedStage
from common.run.state import PLAN, plan_text


def render(plan: Plan) -> str:
    return "\n".join(lines(plan)) + "\n"


def lines(plan: Plan) -> Iterator[str]:
    yield "#!/usr/bin/env bash"
    yield from ("# " + line.replace("\n", "\n# ") for line in summary(plan))
    for script in plan.platform.setup_scripts:
        # Before `set -u`: vendors' scripts read variables that are not set
        yield f"source {assigned(script)}"
    yield "set -euo pipefail"
    yield ""
    for name, value in plan.environment.items():
        yield f"export {name}={assigned(value)}"
    yield f"mkdir -p {quote(plan.run / 'train')}"
    yield from heredoc(plan.config_file, config_text(plan))
    yield from heredoc(plan.run / PLAN, plan_text(plan, {}))  # the report's, and what run.sh goes on from
    for stage in plan.stages:
        yield ""
        yield f"# {stage.name}"
        yield from stage_lines(plan, stage)


def heredoc(file: Path, text: str) -> Iterator[str]:
    """Write `text`, YAML whose lines never are the word END alone, to `file`."""
    yield f"cat > {quote(file)} <<'END'"
    yield text.rstrip("\n")
    yield "END"


def stage_lines(plan: Plan, stage: PlannedStage) -> Iterator[str]:
    """The commands of one stage, and the renaming that makes its output whole."""
    partial = quote(plan.run / f"{stage.name}.partial")
    if stage.name != "train":
        yield f"mkdir -p {partial}"
    for command in stage.commands:
        yield shlex.join(command)
    for name in stage.publishes:
        # A stage may leave a part out: model/ where merging is turned off
        made = quote(plan.run / f"{stage.name}.partial" / name)
        yield f"[ ! -e {made} ] || mv {made} {quote(plan.run / name)}"
    if stage.name != "train":
        yield f"mv {partial} {quote(plan.run / stage.name)}"


def assigned(value: str) -> str:
    """`value` as bash reads it: ${NAME} is expanded, to nothing where it is not set; the rest stands as it is."""
    pieces = VARIABLE.split(value)  # text and names, with their defaults, in turn
    quoted = []
    for index, piece in enumerate(pieces):
        if index % 2:
            quoted.append(f'"${{{piece if ":-" in piece else piece + "-"}}}"')
        elif piece:
            quoted.append(shlex.quote(piece))
    return "".join(quoted) or "''"


def quote(path: object) -> str:
    return shlex.quote(str(path))


def config_text(plan: Plan) -> str:
    """The framework's configuration as it is written to RUN/train/config.yaml."""
    text: str = yaml.safe_dump(plan.config, sort_keys=False, allow_unicode=True, width=120)
    return text


def summary(plan: Plan) -> Iterator[str]:
    """What the plan comes to, in a few lines for a person."""
    batch, cluster, train = plan.batch, plan.cluster, plan.settings.train
    yield f"{plan.recipe_folder.name}, preset {plan.preset_name}: {plan.preset.summary}"
    yield f"platform: {plan.platform_id} ({plan.platform.summary})"
    nodes = "" if cluster.nnodes == 1 else f" on each of {cluster.nnodes} nodes (this is node {cluster.node_rank})"
    yield f"devices: {cluster.nproc_per_node} {'processes' if plan.platform.detect is None else 'devices'}{nodes}"
    yield (
        f"global batch: {batch.micro_batch_size} (micro-batch) x {batch.gradient_accumulation_steps} (accumulation)"
        f" x {batch.data_parallel} (data-parallel ranks) = {batch.global_batch_size} rows"
        f" of up to {plan.settings.data.max_length} tokens"
    )
    yield f"steps: {train.max_steps or f'{train.num_train_epochs:g} epochs of the prepared rows'}"
    if plan.preset.memory:
        memory = plan.preset.memory
        need = f"{memory.device_gib:g} GiB a device, {memory.host_gib:g} GiB of the host"
        yield f"memory: {need} ({'measured' if memory.measured else 'not measured here'}: {memory.source})"
    yield f"output: {plan.run}"
    built = "" if plan.spec.complete() else " (not made yet: run.sh makes it)"
    yield f"environment: {plan.spec.folder()}{built}"
    yield f"light environment: {light_spec().folder()}; project: {ROOT}"
