"""python -m common.run RECIPE: what every recipe's run.sh calls."""

from __future__ import annotations

import shlex
import sys
from typing import Annotated

import typer
from rich.console import Console

from common import cli, doctor, environment, hardware, plan, recipe
from common.errors import UserError
from common.request import Request
from common.run import options, script, state, verdict
from common.run.runner import Selection, carry_out

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def run(
    recipe_folder: options.Recipe,
    preset: options.Preset = "smoke",
    model: options.Model = None,
    data: options.Data = None,
    set_: options.Set = None,
    platform: options.Platform = None,
    output: options.Output = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print every command as a script and stop.")] = False,
    only: Annotated[str | None, typer.Option(metavar="STAGE", help="Run this stage only, again if it is done.")] = None,
    from_: Annotated[
        str | None, typer.Option("--from", metavar="STAGE", help="Run this stage and those after it again.")
    ] = None,
    start_fresh: Annotated[bool, typer.Option("--fresh", help="Remove what an earlier run left, then start.")] = False,
    nproc_per_node: options.NprocPerNode = None,
    nnodes: options.Nnodes = 1,
    node_rank: options.NodeRank = 0,
    master_addr: options.MasterAddr = "127.0.0.1",
    master_port: options.MasterPort = 29500,
) -> None:
    """Fine-tune, export, evaluate and report. The same command again does only what is left."""
    planned = plan.make(
        Request(
            recipe=recipe.find(recipe_folder),
            preset=preset,
            platform=platform,
            model=model,
            data=data,
            assignments=tuple(set_ or ()),
            output=output,
            nproc_per_node=nproc_per_node,
            nnodes=nnodes,
            node_rank=node_rank,
            master_addr=master_addr,
            master_port=master_port,
        )
    )
    for option, name in (("--only", only), ("--from", from_)):
        if name is not None and name not in planned.recipe.stages:
            raise UserError(f"{option} names no stage", found=name, expected=", ".join(planned.recipe.stages))
    if only is not None and from_ is not None:
        raise UserError("--only and --from contradict each other", hint="give one of them")
    if dry_run:
        print(script.render(planned), end="")
        return
    state.refuse_foreign(planned.run)  # before the lock is put there
    doctor.check_inputs(planned)
    hardware.need(planned.platform_id, planned.cluster.nproc_per_node)
    selection = Selection(only, from_)
    if any(stage.needs_recipe_environment for stage in selection.stages(planned)):
        _need_sources(planned)
    console = Console(stderr=False)
    for line in script.summary(planned):
        console.print(line, highlight=False, markup=False, style="dim", soft_wrap=True)
    with state.lock(planned.run, node_rank):
        if start_fresh and node_rank == 0:
            state.fresh(planned.run)
        state.check_same_plan(planned)
        again = shlex.join(["bash", f"{planned.recipe_folder}/run.sh", *_without_fresh(sys.argv[2:])])
        try:
            carry_out(planned, selection, console, again)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"interrupted; this goes on from the last checkpoint:\n  {again}") from None
        verdict.check(planned)


def _need_sources(planned: plan.Plan) -> None:
    try:
        environment.need_sources(planned.spec)
    except environment.EnvironmentFailure as failure:
        raise UserError(str(failure)) from None


def _without_fresh(arguments: list[str]) -> list[str]:
    return [argument for argument in arguments if argument != "--fresh"]


if __name__ == "__main__":
    sys.exit(cli.call_app(app))
