"""python -m tools plan RECIPE: the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from common import recipe
from common.errors import EXIT_FAILED, UserError
from common.request import Request
from common.run import options
from tools import listing
from tools.planning import answer, question, schedulers, show, sweep

MATPLOTLIB_FORMATS = (".png", ".svg", ".pdf")


def plan(
    recipe_folder: options.Recipe,
    preset: options.Preset = "full",
    model: Annotated[
        str | None, typer.Option(help="A folder with config.json, or a name like meta-llama/Meta-Llama-3-8B.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Training data, where the number of rows is to be estimated.")
    ] = None,
    rows: Annotated[int | None, typer.Option(min=1, help="Rows of one epoch, after packing.")] = None,
    set_: options.Set = None,
    platform: options.Platform = None,
    output: options.Output = None,
    devices: Annotated[int | None, typer.Option("--devices", "--nproc-per-node", min=1, help="On each node.")] = None,
    nnodes: options.Nnodes = 1,
    utilization: Annotated[
        float | None, typer.Option("--mfu", min=0.01, max=1, help="The share of the peak that is reached.")
    ] = None,
    price_per_hour: Annotated[float | None, typer.Option(min=0, help="Of one device, in any currency.")] = None,
    sweep_: Annotated[
        list[str] | None,
        typer.Option("--sweep", metavar="AXIS=N,N", help="Repeatable; AXIS: devices, length or batch (rows at once)."),
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="With --sweep: write it as a picture, .png, .svg or .pdf.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Compare with torch's FSDP2 memory tracker.")] = False,
    slurm: Annotated[bool, typer.Option("--slurm", help="Print a batch script for sbatch.")] = False,
    kubernetes: Annotated[bool, typer.Option("--kubernetes", help="Print a Kubeflow TrainJob.")] = False,
    image: Annotated[str, typer.Option(help="With --kubernetes: the container image.")] = schedulers.IMAGE,
    volume: Annotated[
        str, typer.Option(help="With --kubernetes: the claim of the shared volume that has this project.")
    ] = schedulers.VOLUME,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Memory, host, disk, steps, time and cost of a run, and whether it fits. Exit status 1 when it does not fit."""
    _one_of({"--sweep": bool(sweep_), "--slurm": slurm, "--kubernetes": kubernetes, "--verify": verify})
    if plot is not None and not sweep_:
        raise UserError("--plot draws a sweep", hint="--sweep devices=2,4,8 --plot memory.png")
    if plot is not None and plot.suffix not in MATPLOTLIB_FORMATS:
        raise UserError("no such kind of picture", found=plot.name, expected=", ".join(MATPLOTLIB_FORMATS))
    asked = question.ask(
        Request(
            recipe=recipe.find(recipe_folder),
            preset=preset,
            platform=platform,
            model=model,
            data=data,
            assignments=tuple(set_ or ()),
            output=output,
            nproc_per_node=devices,
            nnodes=nnodes,
        ),
        rows,
    )
    if sweep_:
        points = sweep.points(asked, sweep.axes(sweep_))
        if plot is not None:
            from tools.planning import plot as plots  # matplotlib takes a second

            plots.draw(points, asked, plot)
        if as_json:
            _print(points)
        else:
            sweep.show(points, asked, listing.console())
        return 0
    found = answer.answer(asked, utilization, price_per_hour)
    if slurm or kubernetes:
        text = schedulers.slurm(asked, found) if slurm else schedulers.kubernetes(asked, found, image, volume)
        print(text, end="")
        return 0
    if verify:
        from tools.planning import verify as verification

        found["verified"] = verification.compare(asked)
    if as_json:
        _print(found)
    else:
        show.show(found, listing.console())
    return 0 if found["fits"]["fits"] else EXIT_FAILED


def _one_of(given: dict[str, bool]) -> None:
    named = [option for option, there in given.items() if there]
    if len(named) > 1:
        raise UserError(f"{' and '.join(named)} contradict each other", hint="give one of them")


def _print(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))
