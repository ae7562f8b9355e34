"""A progress bar on standard error: bytes read, tokens a second, time left."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from common.data import sources
from common.data.files import find


@contextlib.contextmanager
def token_progress(location: str) -> Iterator[Callable[[int, int], None]]:
    """A function of (bytes read, tokens made) since its last call, that draws the bar."""
    console = Console(stderr=True)
    total = None
    with contextlib.suppress(Exception):
        paths = find(sources.local(location))
        if all(path.suffix in (".json", ".jsonl", ".txt") for path in paths):
            total = sum(path.stat().st_size for path in paths)
    columns = (
        TextColumn("preparing"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total, rate="")
        tokens = 0

        def advance(read: int, made: int) -> None:
            nonlocal tokens
            tokens += made
            seconds = bar.tasks[0].elapsed or 0.0
            rate = f"{tokens / seconds / 1e6:.1f} M tokens/s" if seconds else ""
            bar.update(task, advance=read, rate=rate)

        yield advance
