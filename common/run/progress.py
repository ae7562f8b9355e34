"""What a person sees while a run goes on: one line a stage, live on a terminal, sparse in a log."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from common import metrics

LOG_EVERY_SECONDS = 15.0  # without a terminal, training says where it is this often


class Display:
    """Shows the stages of a run; training with step, loss, tokens/s and the time that is left."""

    def __init__(self, console: Console, stages: list[str], metrics_file: Path) -> None:
        self.console = console
        self.stages = stages
        self.metrics_file = metrics_file
        self.progress = Progress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None
        self._said = 0.0
        self._rows_before = 0
        self._size = -1

    def __enter__(self) -> Display:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def label(self, name: str) -> str:
        return f"{self.stages.index(name) + 1}/{len(self.stages)} {name:<9}"

    def skip(self, name: str) -> None:
        self._finished(name, "done before")

    def start(self, name: str) -> None:
        self._task = self.progress.add_task(self.label(name), total=None, note="")
        self._said = time.monotonic()
        self._rows_before = len(metrics.read(self.metrics_file))
        if not self.console.is_terminal:
            self.console.print(f"{self.label(name)} ...")

    def training(self) -> None:
        """Show where training is; called often, reads metrics.jsonl only when it has grown."""
        size = self.metrics_file.stat().st_size if self.metrics_file.exists() else 0
        if size == self._size or not size:
            return
        self._size = size
        note, completed, total = describe(metrics.read(self.metrics_file), self._total)
        if self._task is not None:
            self.progress.update(self._task, note=note, completed=completed, total=total)
        if not self.console.is_terminal and time.monotonic() - self._said >= LOG_EVERY_SECONDS:
            self._said = time.monotonic()
            self.console.print(f"{self.label('train')} {note}")

    def set_total(self, steps: int | None) -> None:
        self._total = steps

    def finish(self, name: str, seconds: float, note: str) -> None:
        if self._task is not None:
            self.progress.remove_task(self._task)
            self._task = None
        self._finished(name, f"{seconds:.1f} s  {note}".rstrip())

    def _finished(self, name: str, note: str) -> None:
        self.console.print(f"[green]✓[/] {self.label(name)} {escape(note)}", highlight=False, soft_wrap=True)

    def fail(self, name: str) -> None:
        if self._task is not None:
            self.progress.remove_task(self._task)
            self._task = None
        self.console.print(f"[red]✗[/] {self.label(name)}", highlight=False, soft_wrap=True)


def describe(rows: list[dict[str, float]], total: int | None) -> tuple[str, int, int | None]:
    """A line on the newest row of metrics.jsonl, the steps done, and all steps where they are known."""
    if not rows:
        return "", 0, total
    last = rows[-1]
    recent = rows[-10:]
    seconds = sum(row["seconds"] for row in recent)
    rate = sum(row["tokens"] for row in recent) / seconds if seconds else 0.0
    step = int(last["step"])
    note = f"step {step}{f'/{total}' if total else ''}  loss {last['loss']:.4f}  {rate:,.0f} tokens/s"
    if total:
        left = (total - step) * seconds / len(recent)
        note += f"  {int(left // 60)}:{int(left % 60):02d} left"
    return note, step, total
