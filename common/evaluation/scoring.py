"""The commands that score answers: squad, math, contest, retention."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from common.errors import EXIT_FAILED, UserError
from common.evaluation import contest as rules
from common.evaluation import judge, retention, rows, squad
from common.evaluation.comparison import METRICS

Json = Annotated[bool, typer.Option("--json", help="One JSON object.")]


class Metric(str, Enum):
    official = "official"
    emf1 = "emf1"


def score_squad(
    predictions: Annotated[
        Path, typer.Option(metavar="FILE", help="JSON lines: prediction, and label or id; or one object of id: answer.")
    ],
    references: Annotated[
        Path | None, typer.Option(metavar="FILE", help="dev-v1.1.json, or JSON lines: id, answers.")
    ] = None,
    metric: Annotated[
        Metric, typer.Option(help="SQuAD v1.1's own over all references, or the contest's EmF1Metric.")
    ] = Metric.official,
    json_: Json = False,
) -> None:
    """F1 and exact match of answers to questions about a passage, in percent."""
    found, missing = rows.answered(predictions, references)
    if missing:
        typer.echo(f"{missing} of {len(found)} questions have no answer: they count as 0", err=True)
    total = squad.mean([METRICS[metric.value](each) for each in found])
    shown = {"f1": total.f1, "em": total.em, "count": total.count}
    _print(shown, json_, f"{metric.value}: F1 {total.f1:.2f}, EM {total.em:.2f}, {total.count:,} questions")


def score_math(
    predictions: Annotated[Path, typer.Option(metavar="FILE", help="JSON lines: problem, solution, prediction.")],
    tolerance: Annotated[
        float, typer.Option(min=0, help="Absolute; what it is a tolerance of: docs/evaluation.md.")
    ] = judge.TOLERANCE,
    json_: Json = False,
) -> None:
    """Accuracy of answers to math problems in percent, by type."""
    judged = judge.score(rows.read(predictions, ("problem", "solution", "prediction")), tolerance)
    right = sum(each.correct for each in judged)
    unread = sum(each.expected is None for each in judged)
    if unread:
        typer.echo(f"{unread} of {len(judged)} solutions state no number: no answer to them is right", err=True)
    types = {
        kind: {"accuracy": 100 * correct / count, "correct": correct, "count": count}
        for kind, (correct, count) in judge.accuracies(judged).items()
    }
    total = {"accuracy": 100 * right / len(judged), "correct": right, "count": len(judged), "tolerance": tolerance}
    lines = [
        f"{kind:16} {each['accuracy']:6.1f} %  {each['correct']:,} of {each['count']:,}" for kind, each in types.items()
    ]
    lines.append(f"{'all':16} {total['accuracy']:6.1f} %  {right:,} of {len(judged):,}, within {tolerance:g}")
    _print({**total, "types": types}, json_, "\n".join(lines))


def score_contest(
    base_f1: Annotated[float, typer.Option(min=0, max=100, metavar="PERCENT", help="The base model's F1.")],
    base_em: Annotated[float, typer.Option(min=0, max=100, metavar="PERCENT", help="The base model's exact match.")],
    f1: Annotated[float, typer.Option(min=0, max=100, metavar="PERCENT", help="The fine-tuned model's F1.")],
    em: Annotated[float, typer.Option(min=0, max=100, metavar="PERCENT", help="Its exact match.")],
    accuracy: Annotated[float, typer.Option(min=0, max=100, metavar="PERCENT", help="Its accuracy on the problems.")],
    model: Annotated[Path | None, typer.Option(help="The base model's folder, whose parameters are counted.")] = None,
    adapter: Annotated[Path | None, typer.Option(help="The adapter's folder, whose parameters are counted.")] = None,
    ratio: Annotated[
        float | None, typer.Option(min=0, max=1, help="Trained over all parameters, in place of the folders.")
    ] = None,
    json_: Json = False,
) -> int:
    """The contest's score in both phases. Status 1 where the reading test is failed: the submission does not count."""
    if (ratio is None) == (model is None and adapter is None) or (model is None) != (adapter is None):
        raise UserError("give --model and --adapter, or --ratio")
    if model is not None and adapter is not None:
        from common.evaluation.parameters import trained_ratio

        ratio = trained_ratio(model, adapter)
    assert ratio is not None
    submission = rules.Submission(accuracy, f1, em, ratio)
    passed = rules.counts(submission, base_f1, base_em)
    scores = {1: rules.score(accuracy, ratio, 1), 2: rules.score(accuracy, ratio, 2)}
    least = {"f1": rules.KEPT * base_f1, "em": rules.KEPT * base_em}
    shown = {"score_phase_1": scores[1], "score_phase_2": scores[2], "counts": passed, "least": least, "ratio": ratio}
    lines = [
        f"score, phase 1: {scores[1]:.6f}",
        f"score, phase 2: {scores[2]:.6f}",
        f"trained parameters: {ratio:.6%}",
        f"reading: F1 {f1:.2f} (at least {least['f1']:.2f}), EM {em:.2f} (at least {least['em']:.2f})",
        "the submission counts" if passed else "the submission does not count: it has lost too much of its reading",
    ]
    _print(shown, json_, "\n".join(lines))
    return 0 if passed else EXIT_FAILED


def score_retention(
    before: Annotated[Path, typer.Option(metavar="FILE", help="The base model's answers, as squad reads them.")],
    after: Annotated[Path, typer.Option(metavar="FILE", help="The fine-tuned model's, to the same prompts.")],
    references: Annotated[
        Path | None, typer.Option(metavar="FILE", help="dev-v1.1.json, or JSON lines: id, answers.")
    ] = None,
    metric: Annotated[Metric, typer.Option(help="SQuAD v1.1's own, or the contest's EmF1Metric.")] = Metric.official,
    keep: Annotated[float, typer.Option(min=0, max=1, help="The share of F1 and EM to be kept.")] = rules.KEPT,
    worst: Annotated[int, typer.Option(min=0, metavar="N", help="Regressions to show.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0,
    json_: Json = False,
) -> int:
    """What is left of the base model's reading. Status 1 where it is less than asked for."""
    answers = [rows.answered(file, references)[0] for file in (before, after)]
    labels = [[each.references for each in side] for side in answers]
    if labels[0] != labels[1]:
        place = next((i for i, pair in enumerate(zip(*labels, strict=False)) if pair[0] != pair[1]), None)
        counts = f"{len(labels[1])} answers, and {len(labels[0])} before"
        found = counts if place is None else f"other labels in row {place + 1}"
        raise UserError("are not answers to the prompts of --before", file=after, found=found)
    base, tuned = ([METRICS[metric.value](each) for each in side] for side in answers)
    kept = retention.compare(base, tuned, keep, seed)
    shown = {
        each.metric.lower(): {
            "before": each.before,
            "after": each.after,
            "least": each.least,
            "difference_95": each.interval,
            "passed": each.passed,
        }
        for each in kept
    }
    passed = all(each.passed for each in kept)
    regressions = [
        {
            "row": each.index + 1,
            "label": answers[0][each.index].references[0],
            "before": answers[0][each.index].prediction,
            "after": answers[1][each.index].prediction,
            "f1_before": each.before.f1,
            "f1_after": each.after.f1,
        }
        for each in retention.worst(base, tuned, worst)
    ]
    lines = [
        f"{each.metric} {each.before:.2f} → {each.after:.2f} (at least {each.least:.2f}; "
        f"95 % of the difference: {each.interval[0]:+.2f} to {each.interval[1]:+.2f}) "
        f"{'kept' if each.passed else 'LOST'}"
        for each in kept
    ]
    lines += [f"  row {each['row']}: {each['label']!r}: {each['before']!r} → {each['after']!r}" for each in regressions]
    _print({"passed": passed, "count": len(answers[0]), **shown, "worst": regressions}, json_, "\n".join(lines))
    return 0 if passed else EXIT_FAILED


def _print(value: dict[str, Any], as_json: bool, text: str) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False) if as_json else text)
