"""The plots of a run as SVG that stands inside a page and takes its colours, light or dark, from it.

matplotlib draws; it is imported here alone, without pyplot, because it is slow to import.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from common.report.reading import Row

MOST_POINTS = 800  # of a line; more cannot be told apart on a screen
SMOOTHED_FROM = 60  # steps; shorter lines are read as they are
WIDTH, HEIGHT = 4.6, 2.5  # inches of 72 points: on a phone the text is then as large as the page's

# Colours that nobody would choose, replaced by the page's variables
INK, LINE, FIRST, SECOND = "#010203", "#020304", "#030405", "#040506"
VARIABLES = {INK: "var(--soft)", LINE: "var(--line)", FIRST: "var(--accent)", SECOND: "var(--second)"}

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": LINE,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "lines.solid_joinstyle": "round",
    "path.simplify": True,
}


@dataclass(frozen=True)
class Plot:
    title: str
    caption: str
    svg: str


@dataclass(frozen=True)
class Series:
    label: str
    values: Callable[[Row], float]
    smooth: bool = True


def draw(rows: Sequence[Row], held_out: tuple[float | None, float] | None = None) -> list[Plot]:
    """Loss, learning rate, gradient norm, throughput and memory over the steps; none without two rows.

    `held_out` is the held-out loss before and after training, marked at both ends of the loss.
    """
    if len(rows) < 2:
        return []
    loss = "Nats per trained token" + ("; dots: held-out data, before and after" if held_out else "")
    unit, size = ("GiB", 2**30) if max(row["memory_bytes"] for row in rows) >= 2**30 else ("MiB", 2**20)
    return [
        _plot("Loss", loss, rows, [Series("loss", _field("loss"))], held_out=held_out),
        _plot(
            "Throughput",
            "Tokens a second on all devices, warm-up included",
            rows,
            [Series("effective", _rate("tokens")), Series("padded", _rate("padded_tokens"))],
            from_zero=True,
        ),
        _plot(
            "Learning rate",
            "As used in each step",
            rows,
            [Series("learning rate", _field("learning_rate"), False)],
            True,
        ),
        _plot("Gradient norm", "Before clipping", rows, [Series("gradient norm", _field("grad_norm"))]),
        _plot(
            "Memory",
            f"Peak of a process so far, the largest of all, {unit}",
            rows,
            [Series("memory", lambda row: row["memory_bytes"] / size, False)],
            from_zero=True,
        ),
    ]


def _field(name: str) -> Callable[[Row], float]:
    return lambda row: row[name]


def _rate(name: str) -> Callable[[Row], float]:
    return lambda row: row[name] / row["seconds"] if row["seconds"] > 0 else math.nan


def _plot(
    title: str,
    caption: str,
    rows: Sequence[Row],
    series: Sequence[Series],
    from_zero: bool = False,
    held_out: tuple[float | None, float] | None = None,
) -> Plot:
    with _style(title):
        figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
        axes = figure.add_subplot()
        steps = [row["step"] for row in rows]
        for each, colour in zip(series, (FIRST, SECOND), strict=False):
            _line(axes, steps, [each.values(row) for row in rows], each, colour)
        if held_out:
            points = [
                (step, value) for step, value in zip((steps[0], steps[-1]), held_out, strict=True) if value is not None
            ]
            axes.plot(
                *zip(*points, strict=True), linestyle="none", marker="o", markersize=5, color=SECOND, clip_on=False
            )
        if from_zero:
            axes.set_ylim(bottom=0)
        axes.margins(x=0.01)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
        axes.set_xlabel("step")
        if len(series) > 1:
            axes.legend(loc="lower right", ncols=len(series))
        return Plot(title, caption, _svg(figure, f"{title} over {len(rows)} steps"))


def bars(title: str, caption: str, lengths: Sequence[tuple[str, float]]) -> Plot:
    """One horizontal bar for each name, the first on top."""
    with _style(title):
        figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
        axes = figure.add_subplot()
        drawn = axes.barh([name for name, _ in lengths], [length for _, length in lengths], height=0.55, color=FIRST)
        axes.bar_label(drawn, [f"{length:,.1f}" for _, length in lengths], padding=4)
        axes.invert_yaxis()
        axes.grid(False)
        axes.spines["bottom"].set_visible(False)
        axes.xaxis.set_visible(False)
        axes.margins(x=0.15)
        return Plot(title, caption, _svg(figure, f"{title}: {caption}"))


def _style(title: str) -> AbstractContextManager[None]:
    # The salt keeps the ids of a page's plots apart, and the same from run to run
    return rc_context(STYLE | {"svg.hashsalt": title})


def _line(axes: Axes, steps: Sequence[float], values: Sequence[float], series: Series, colour: str) -> None:
    if series.smooth and len(values) >= SMOOTHED_FROM:
        axes.plot(*thinned(steps, values), color=colour, alpha=0.3, linewidth=1)
        values = running_mean(values, max(SMOOTHED_FROM // 10, len(values) // 100))
    axes.plot(*thinned(steps, values), color=colour, label=series.label)


def running_mean(values: Sequence[float], width: int) -> list[float]:
    """The mean of each value and up to `width` - 1 before it; values that are not finite are left out."""
    means = []
    total, count = 0.0, 0
    for index, value in enumerate(values):
        if math.isfinite(value):
            total, count = total + value, count + 1
        if index >= width and math.isfinite(values[index - width]):
            total, count = total - values[index - width], count - 1
        means.append(total / count if count else math.nan)
    return means


def thinned(steps: Sequence[float], values: Sequence[float]) -> tuple[list[float], list[float]]:
    """At most MOST_POINTS points: each the lowest or the highest of its part of the line, so that no peak is lost."""
    if len(values) <= MOST_POINTS:
        return list(steps), list(values)
    parts = MOST_POINTS // 2 - 1  # two points of each, and both ends
    part = len(values) / parts
    kept: set[int] = {0, len(values) - 1}
    for number in range(parts):
        inside = range(int(number * part), min(int((number + 1) * part), len(values)))
        kept |= {min(inside, key=lambda index: values[index]), max(inside, key=lambda index: values[index])}
    order = sorted(kept)
    return [steps[index] for index in order], [values[index] for index in order]


def short(value: float) -> str:
    """An axis label: 1,200 as 1.2k, 0.0002 as 2e-4."""
    if value == 0:
        return "0"
    if abs(value) < 1e-3:
        digits, exponent = f"{value:.2e}".split("e")
        return f"{float(digits):g}e{int(exponent)}"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _svg(figure: Figure, description: str) -> str:
    """The figure as an <svg> element that scales with the page, without metadata and document head."""
    FigureCanvasSVG(figure)
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = file.getvalue()
    text = text[text.index("<svg") :]
    # Groups are numbered in every plot alike, and nothing refers to them: ids of a page must differ
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    box = re.search(r'viewBox="([^"]*)"', text)
    assert box is not None, "matplotlib writes a viewBox"
    text = re.sub(r"<svg[^>]*>", f'<svg viewBox="{box[1]}" role="img" aria-label="{description}">', text, count=1)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, variable)
    return text
