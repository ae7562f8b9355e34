"""python -m common.report RUN --output FOLDER: report.json, report.md and report.html of a run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from common import cli

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, finished or not.")],
    output: Annotated[Path, typer.Option(help="The folder to write into.")],
) -> None:
    """Write report.json, report.md and report.html of a run, finished or not."""
    from common.report import reading, render, summary  # the plots' library is slow to import: not for --help

    found = reading.read(run.absolute())
    render.write(summary.summarize(found), found.rows, output)


if __name__ == "__main__":
    sys.exit(cli.call_app(app))
