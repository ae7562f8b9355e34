"""What a run's evaluation says: tables of a report, and the verdict."""

from __future__ import annotations

from common.report import text
from common.report.figures import Evaluation, Report
from common.report.tables import SPLIT_NAMES, Table

SHOWN = 160  # characters of a text in a table


def measured(report: Report) -> Table:
    """What was measured before and after, of whole tasks."""
    whole = [each for each in report.evaluation if each.part is None]
    rows = [
        (
            each.task,
            each.metric,
            SPLIT_NAMES.get(each.split, each.split),
            text.count(each.count),
            text.number(each.before),
            text.number(each.after),
            _judged(each),
        )
        for each in whole
    ]
    table = Table(("Task", "Metric", "Split", "Count", "Before", "After", ""), rows)
    if any(each.interval for each in whole):
        table = table.with_column("95 % of the change", [_interval(each) for each in whole])
    if report.limits:
        table = table.with_column("Limit", [limit(each) for each in whole])
    return table


def _interval(each: Evaluation) -> str:
    return "" if each.interval is None else " to ".join(f"{value:+.2f}" for value in each.interval)


def limit(each: Evaluation) -> str:
    """At least 53.8832; nothing where nothing is asked."""
    if each.limit is None:
        return ""
    return f"{'at least' if each.higher_is_better else 'at most'} {text.number(each.limit)}"


def verdict(report: Report) -> str | None:
    """Whether the model keeps what it must, in one sentence."""
    if report.verdict:
        return f"The model lost too much: {report.verdict}."
    return "The model keeps what it was asked to keep." if report.limits else None


def parts(report: Report) -> Table:
    """The figures of parts of a task, such as types of problems."""
    rows = [
        (
            each.task,
            each.part,
            each.metric,
            text.count(each.count),
            text.number(each.before, 2),
            text.number(each.after, 2),
            _judged(each),
        )
        for each in report.evaluation
        if each.part is not None
    ]
    return Table(("Task", "Type", "Metric", "Count", "Before", "After", ""), rows)


def regressions(report: Report) -> Table:
    """What is answered worse than before, with the end of each prompt."""
    rows = [
        (
            _ending(str(lost.get("prompt", ""))),
            str(lost.get("reference", "")),
            _ending(str(lost.get("before", ""))),
            _ending(str(lost.get("after", ""))),
            text.number(lost.get("score_before"), 2),
            text.number(lost.get("score_after"), 2),
        )
        for each in report.evaluation
        for lost in each.regressions
    ]
    return Table(("Prompt", "Reference", "Before", "After", "Score before", "Score after"), rows)


def _ending(words: str) -> str:
    return words if len(words) <= SHOWN else "…" + words[-SHOWN:]


def leaderboard(report: Report) -> Table | None:
    """This run among those that recipe.yaml states."""
    board = report.leaderboard
    if board is None:
        return None
    rows = [
        (
            str(number),
            f"{place.who} ({report.preset})" if place.this_run else place.who,
            place.source or "measured here",
            *(text.number(place.values[metric], 4) for metric in board.metrics),
        )
        for number, place in enumerate(board.rows, 1)
    ]
    return Table(("", "Who", "Source", *board.metrics), rows)


def _judged(each: Evaluation) -> str:
    if each.before is None or each.before == each.after:
        return "" if each.before is None else "the same"
    return "better" if (each.after > each.before) == each.higher_is_better else "worse"
