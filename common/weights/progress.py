"""Progress of long work on standard error: bytes, GB/s and what is left."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from common.weights.writing import Report


@contextlib.contextmanager
def shown(what: str, total: int) -> Iterator[Report]:
    """A report function for `total` bytes; its bar is shown when standard error is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=total)
        yield lambda count: progress.update(task, advance=count)
