"""python -m common.weights: get, inspect, convert and verify Llama 3 weights."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from common import cli
from common.weights import get as getting
from common.weights import inspect as inspecting

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)


@app.command()
def get(
    source: Annotated[str, typer.Argument(metavar="SRC", help='"tiny", or a model folder')],
    target: Annotated[Path, typer.Argument(metavar="DST", help="the folder to create")],
    to: Annotated[str, typer.Option(help="the format wanted")] = "hf",
    tokenizer: Annotated[Path | None, typer.Option(help="tokenizer file or folder to use instead")] = None,
    seed: Annotated[int, typer.Option(help="tiny only: the seed of the weights")] = 0,
    kind: Annotated[str | None, typer.Option(help="base or instruct; tiny: base unless given")] = None,
) -> None:
    """Bring a model to the format a recipe needs: make, link or convert it."""
    getting.get(source, target, to=to, tokenizer=tokenizer, seed=seed, kind=kind)


@app.command()
def inspect(path: Annotated[Path, typer.Argument(metavar="PATH", help="a model folder")]) -> None:
    """Print what a model is, without loading it."""
    print(json.dumps(inspecting.inspect(path).as_dict(), indent=2))


if __name__ == "__main__":
    sys.exit(cli.call(app))
