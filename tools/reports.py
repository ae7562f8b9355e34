"""tools report RUN [RUN ...]: one run's report, or several side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from common import recipe
from common.errors import UserError
from common.report import reading, render, text
from common.report.figures import Report
from common.report.summary import summarize
from tools.generated.tables import table

Row = tuple[str, Callable[[Report], str]]


def find(run: str) -> Path:
    """A run directory by its path, by RECIPE/PRESET, or by RECIPE (its smoke run)."""
    runs = recipe.ROOT / "runs"
    for place in (Path(run), runs / run, runs / run / "smoke"):
        if (place / reading.PLAN).is_file():
            return place.absolute()
    made = sorted(str(file.parent.relative_to(runs)) for file in runs.glob(f"*/*/{reading.PLAN}"))
    raise UserError(
        "is no run directory", file=run, expected=", ".join(made) or "a run directory; there are none under runs/"
    )


def summaries(runs: Sequence[str]) -> list[Report]:
    """The figures of each run, finished or not. Raises UserError for what is no run directory."""
    return [summarize(reading.read(find(run))) for run in runs]


def one(report: Report) -> str:
    """The run's own report, in Markdown."""
    return render.as_markdown(report)


def side_by_side(reports: Sequence[Report]) -> str:
    """A Markdown table: a column for each run, a row for each figure that one of them has."""
    rows = [[name, *(show(report) for report in reports)] for name, show in _rows(reports)]
    kept = [row for row in rows if any(cell != text.NONE for cell in row[1:])]
    return table(["", *(f"{each.recipe}, {each.preset}" for each in reports)], kept)


def _rows(reports: Sequence[Report]) -> list[Row]:
    rows: list[Row] = [
        ("Run", lambda r: r.run),
        ("Finished", lambda r: "yes" if r.finished else "no: " + "; ".join(r.missing)),
        ("Platform", lambda r: f"{r.platform}, {render.devices(r)}"),
        ("Model", lambda r: text.parameters(r.model.parameters)),
        ("Trained parameters", lambda r: text.parameters(r.model.trained_parameters)),
        ("Rows of an optimizer step", lambda r: text.count(r.batch.global_batch_size)),
        ("Steps", lambda r: text.count(r.training.steps) if r.training else text.NONE),
        ("Loss, first step", lambda r: text.number(r.training.first_loss) if r.training else text.NONE),
        ("Loss, last step", lambda r: text.number(r.training.last_loss) if r.training else text.NONE),
    ]
    named = dict.fromkeys((each.task, each.metric, each.split) for report in reports for each in report.evaluation)
    rows += [(f"{task}, {metric} ({split})", _evaluated((task, metric, split))) for task, metric, split in named]
    return [
        *rows,
        ("Tokens a second, not padding", lambda r: _speed(r)),
        ("Peak memory of a process", lambda r: text.size(r.training.peak_memory_bytes) if r.training else text.NONE),
        ("Time of all stages", lambda r: text.duration(r.seconds)),
        ("Commit", lambda r: (r.provenance.commit or text.NONE)[:12]),
    ]


def _evaluated(key: tuple[str, str, str]) -> Callable[[Report], str]:
    def show(report: Report) -> str:
        for each in report.evaluation:
            if (each.task, each.metric, each.split) == key:
                return f"{text.number(each.before)} → {text.number(each.after)}"
        return text.NONE

    return show


def _speed(report: Report) -> str:
    speed = report.training.throughput if report.training else None
    return text.number(speed.tokens_per_second.total, 1) if speed else text.NONE
