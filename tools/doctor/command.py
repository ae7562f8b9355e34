"""python -m tools doctor RECIPE."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from common import recipe
from common.errors import EXIT_FAILED
from common.request import Request
from common.run import options
from tools import listing
from tools.doctor.examine import examine

STYLES = {"pass": "green", "warn": "yellow", "fail": "bold red"}


def doctor(
    recipe_folder: options.Recipe,
    preset: options.Preset = "smoke",
    platform: options.Platform = None,
    model: options.Model = None,
    data: options.Data = None,
    set_: options.Set = None,
    output: options.Output = None,
    nproc_per_node: options.NprocPerNode = None,
    nnodes: options.Nnodes = 1,
    node_rank: options.NodeRank = 0,
    master_addr: options.MasterAddr = "127.0.0.1",
    master_port: options.MasterPort = 29500,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Whether this machine can run a recipe: each line passes, warns or fails with what to do. Status 1 on a fail."""
    lines = list(
        examine(
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
    )
    failed = sum(line.state == "fail" for line in lines)
    if as_json:
        print(json.dumps([asdict(line) for line in lines], indent=2, ensure_ascii=False))
        return EXIT_FAILED if failed else 0
    out = listing.console()
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for line in lines:
        told = Text(line.found)
        if line.to_do and line.state != "pass":
            told.append(f"\nto do: {line.to_do}", style="dim")
        table.add_row(Text(line.state, style=STYLES[line.state]), Text(line.name), told)
    out.print(table)
    warned = sum(line.state == "warn" for line in lines)
    out.print(f"{len(lines)} lines: {failed} failed, {warned} to look at")
    return EXIT_FAILED if failed else 0
