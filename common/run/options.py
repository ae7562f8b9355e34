"""The options of run.sh that `tools doctor` and `tools plan` take, too: one help text for each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Recipe = Annotated[str, typer.Argument(metavar="RECIPE", help="The recipe's folder or name.")]
Preset = Annotated[str, typer.Option(help="The size of the run: smoke, full, or another of recipe.yaml.")]
Platform = Annotated[str | None, typer.Option(help="The hardware kind; see common/platforms/.")]
Model = Annotated[str | None, typer.Option(help="Weights: a folder, or a hub id.")]
Data = Annotated[str | None, typer.Option(help="Training data: a file, a glob, a folder, or a hub id.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="train.learning_rate=1e-4, or config.sft.optim=... of configs/."),
]
Output = Annotated[Path | None, typer.Option(help="The run directory.", show_default="runs/RECIPE/PRESET")]
NprocPerNode = Annotated[int | None, typer.Option(min=1, help="Processes (devices) on each node.")]
Nnodes = Annotated[int, typer.Option(min=1, help="Nodes.")]
NodeRank = Annotated[int, typer.Option(help="Which node this is, from 0.")]
MasterAddr = Annotated[str, typer.Option(help="Node 0's address.")]
MasterPort = Annotated[int, typer.Option(min=1, max=65535, help="A free port of node 0.")]
