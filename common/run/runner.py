"""Runs the stages of a plan: those not done yet, one after the other, in the run directory."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from common import environment, metrics
from common.errors import RunError
from common.files import write_text
from common.plan import Plan, PlannedStage
from common.run import child, script, state
from common.run.cause import cause
from common.run.progress import Display, describe
from common.run.provenance import provenance, versions

POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Selection:
    """Which stages to run: all that are not done, one, or one and those after it."""

    only: str | None = None
    begin: str | None = None

    def stages(self, plan: Plan) -> list[PlannedStage]:
        if self.only:
            return [stage for stage in plan.stages if stage.name == self.only]
        return list(plan.stages)

    def again(self, plan: Plan) -> list[PlannedStage]:
        """The stages whose earlier output does not count."""
        if self.only:
            return self.stages(plan)
        names: list[str] = [stage.name for stage in plan.stages]
        return list(plan.stages[names.index(self.begin) :]) if self.begin else []


class StageFailed(RunError):
    """A stage ended with an error; the message is the last screen."""


def carry_out(plan: Plan, selection: Selection, console: Console, again: str) -> None:
    """Run what is left of `plan`. `again` is the command that was typed, for the last screen.

    Raises StageFailed, or KeyboardInterrupt after the stage at work has ended.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    for stage in selection.again(plan):
        state.forget(plan, stage)
    chosen = selection.stages(plan)
    todo = [stage for stage in chosen if not state.is_done(plan, stage)]
    _need_earlier(plan, chosen)
    if plan.cluster.node_rank == 0:
        state.save_plan(plan, provenance(plan))
        write_text(plan.config_file, script.config_text(plan))
    total = plan.settings.train.max_steps
    with Display(console, [stage.name for stage in plan.stages], plan.run / "metrics.jsonl") as display:
        display.set_total(total)
        for stage in chosen:
            if stage not in todo:
                display.skip(stage.name)
            elif plan.cluster.node_rank and not stage.launched:
                _wait_for_first_node(plan, stage, display)
            else:
                # Bad data or weights show in the stages before, without waiting for the environment
                if stage.needs_recipe_environment:
                    _make_environment(plan, console)
                _run_stage(plan, stage, display, again)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _need_earlier(plan: Plan, chosen: list[PlannedStage]) -> None:
    for stage in plan.stages:
        if stage is chosen[0]:
            return
        if not state.is_done(plan, stage):
            raise RunError(
                f"stage {chosen[0].name} needs {stage.name}, which is not done",
                file=plan.run,
                hint="run it first, or leave out --only",
            )


def _make_environment(plan: Plan, console: Console) -> None:
    if plan.spec.complete():
        return
    plain: dict[str, Any] = {"highlight": False, "markup": False, "soft_wrap": True}  # a path may hold brackets
    console.print(f"making the recipe's environment from {plan.spec.requirements} (once, a few minutes) ...", **plain)
    started = time.monotonic()
    try:
        environment.ensure(plan.spec)
    except environment.EnvironmentFailure as error:
        raise RunError(str(error)) from None
    console.print(f"made {plan.spec.folder()} in {time.monotonic() - started:.0f} s", **plain)


def _wait_for_first_node(plan: Plan, stage: PlannedStage, display: Display) -> None:
    """On the other nodes, stages that run once are waited for in the shared run directory."""
    display.start(stage.name)
    started = time.monotonic()
    said = started
    while not state.is_done(plan, stage):
        time.sleep(POLL_SECONDS)
        if time.monotonic() - said > 60:
            said = time.monotonic()
            said_so = f"waiting for node 0 to finish {stage.name} in {plan.run} (the nodes must share it)"
            display.console.print(said_so, markup=False)
    display.finish(stage.name, time.monotonic() - started, "by node 0")


def _run_stage(plan: Plan, stage: PlannedStage, display: Display, again: str) -> None:
    first_node = plan.cluster.node_rank == 0
    log = plan.run / "logs" / (f"{stage.name}.log" if first_node else f"{stage.name}-node{plan.cluster.node_rank}.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    if first_node:
        state.forget(plan, stage)
        if stage.name != "train":
            (plan.run / f"{stage.name}.partial").mkdir()
    display.start(stage.name)
    started = time.monotonic()
    for command in stage.commands:
        begin = log.stat().st_size if log.exists() else 0
        status = _run_command(plan, command, log, display, stage.name)
        if status:
            display.fail(stage.name)
            raise StageFailed(
                f"stage {stage.name} failed: {cause(log, begin, status)}\n  log:      {log}\n  again:    {again}"
            )
    seconds = time.monotonic() - started
    if first_node:
        state.finish(plan, stage, seconds, versions(plan))
    display.finish(stage.name, seconds, _note(plan, stage))


def _note(plan: Plan, stage: PlannedStage) -> str:
    if stage.name == "train":
        note, _, _ = describe(metrics.read(plan.run / "metrics.jsonl"), None)
        return note
    return ", ".join(str(plan.run / name) for name in stage.publishes if (plan.run / name).exists())


def _run_command(plan: Plan, command: tuple[str, ...], log: Path, display: Display, stage: str) -> int:
    with open(log, "ab") as output:
        output.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} {' '.join(command)}\n".encode())
        output.flush()
        running = child.start(plan, command, output)
        try:
            while (status := running.poll()) is None:
                time.sleep(POLL_SECONDS)
                if stage == "train":
                    display.training()
            return status
        except BaseException:
            child.end(running)
            raise
