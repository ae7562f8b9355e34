"""A report as report.json, report.md and report.html."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import yaml

from common.evaluation import result
from common.files import write_text
from common.report import evaluated, plots, text
from common.report.figures import Rate, Report
from common.report.reading import Row
from common.report.summary import SMOKE
from common.report.tables import SPLIT_NAMES, Table

TEMPLATES = Path(__file__).parent / "templates"
MACHINE = {"cpu": "CPU", "cores": "Cores", "memory_gib": "Memory, GiB", "system": "System"}
LOSS, PERPLEXITY = "loss", "perplexity"


@dataclass(frozen=True)
class Tile:
    """One figure of the headline."""

    label: str
    value: str
    detail: str


def write(report: Report, rows: Sequence[Row], folder: Path) -> None:
    """Write the three files into `folder`; `rows` are drawn."""
    write_text(folder / "report.json", as_json(report))
    write_text(folder / "report.md", as_markdown(report))
    write_text(folder / "report.html", as_html(report, rows))


def as_json(report: Report) -> str:
    """The figures as JSON; a number that is not finite is null, because JSON has none."""
    return json.dumps(json.loads(report.model_dump_json()), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def as_markdown(report: Report) -> str:
    environment = _environment(False)
    environment.filters["cell"] = text.markdown
    return environment.get_template("report.md.j2").render(_content(report))


def as_html(report: Report, rows: Sequence[Row]) -> str:
    """One self-contained page: no script, no external file, everything that a person wrote escaped."""
    loss = next((each for each in report.evaluation if each.metric == LOSS), None)
    drawn = plots.draw(rows, (loss.before, loss.after) if loss else None)
    timed = [(each.name, each.seconds) for each in report.stages if each.seconds is not None]
    drawn += [plots.bars("Time", "Seconds of each stage", timed)] if timed else []
    return _environment(True).get_template("report.html.j2").render(_content(report), plots=drawn)


def _environment(escape: bool) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=escape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"visible": text.visible, "fenced": text.fenced}
    return environment


def _content(report: Report) -> dict[str, Any]:
    return {
        "report": report,
        "tiles": tiles(report),
        "ask": ask(report),
        "measured": measured(report),
        "evaluation": evaluated.measured(report),
        "verdict": evaluated.verdict(report),
        "parts": evaluated.parts(report),
        "regressions": evaluated.regressions(report),
        "leaderboard": evaluated.leaderboard(report),
        "samples": [sample for each in report.evaluation for sample in each.samples],
        "training": training(report),
        "rates": rates(report),
        "throughput_says": throughput_says(report),
        "stages": [(each.name, text.duration(each.seconds) if each.done else "not done") for each in report.stages],
        "total": text.duration(report.seconds),
        "batch": batch(report),
        "data": data(report),
        "dropped": [
            (each.name, reason, text.count(number)) for each in report.data for reason, number in each.dropped.items()
        ],
        "data_options": _flat(report.data_options),
        "results": results(report),
        "results_say": results_say(report),
        "provenance": provenance(report),
        "settings": _yaml(report.settings),
        "config": _yaml(report.config),
    }


def tiles(report: Report) -> list[Tile]:
    """The headline: what came out."""
    shown = []
    if trained := report.training:
        steps = f"step {trained.first_step} → step {trained.last_step}"
        shown.append(Tile("Training loss", _change(trained.first_loss, trained.last_loss), steps))
    for each in report.evaluation:
        if each.metric in (LOSS, PERPLEXITY):
            name = "Held-out loss" if each.metric == LOSS else "Held-out perplexity"
            digits = 4 if each.metric == LOSS else 2
            shown.append(
                Tile(name, _change(each.before, each.after, digits), f"{text.count(each.count)} tokens, before → after")
            )
        elif each.limit is not None:
            name = f"{each.task[:1].upper()}{each.task[1:]} {each.metric}"
            state = "kept" if result.Result(**each.model_dump()).passed else "lost"
            shown.append(Tile(name, _change(each.before, each.after, 2), f"{evaluated.limit(each)}: {state}"))
    if trained and (speed := trained.throughput):
        detail = f"not padding; {text.count(speed.tokens_per_second.per_device)} a {report.hardware.unit}"
        shown.append(Tile("Tokens a second", text.count(speed.tokens_per_second.total), detail))
    if trained:
        shown.append(Tile("Peak memory", text.size(trained.peak_memory_bytes), "of a process, the largest of all"))
    steps = f"training steps {text.duration(trained.seconds)}" if trained else "no training step yet"
    shown.append(Tile("Time", text.duration(report.seconds), f"all stages; {steps}"))
    return shown


def _change(before: float | None, after: float, digits: int = 4) -> str:
    return f"{text.number(before, digits)} → {text.number(after, digits)}"


def ask(report: Report) -> str | None:
    """The command that asks the fine-tuned model something."""
    path = report.model.merged or report.model.adapter
    return f'python -m common.evaluation generate --model {shlex.quote(path)} --prompt "..."' if path else None


def measured(report: Report) -> str:
    """Whose figures these are."""
    machine = report.provenance.machine
    words = [str(machine.get("cpu", "a machine that plan.yaml does not name"))]
    words += [f"{machine['cores']} cores"] if "cores" in machine else []
    words += [f"{machine['memory_gib']} GiB"] if "memory_gib" in machine else []
    words += [f"platform {report.platform} ({devices(report)})"]
    where = ", ".join(words)
    return f"The figures of this run were measured on {where}."


def devices(report: Report) -> str:
    """2 processes; 8 devices on 4 cards; 16 devices on 2 nodes."""
    hardware = report.hardware
    plural = {"process": "processes", "device": "devices"}[hardware.unit]
    words = f"{hardware.devices} {hardware.unit if hardware.devices == 1 else plural}"
    if hardware.cards and (hardware.devices_per_card or 1) > 1:
        words += f" on {hardware.cards} {'card' if hardware.cards == 1 else 'cards'}"
    return words + (f" on {hardware.nodes} nodes" if hardware.nodes > 1 else "")


def training(report: Report) -> list[tuple[str, str]]:
    trained = report.training
    if trained is None:
        return []
    rows = [
        ("Steps", f"{text.count(trained.steps)} (step {trained.first_step} to {trained.last_step})"),
        ("Loss, first → last step", _change(trained.first_loss, trained.last_loss)),
        ("Lowest loss", f"{text.number(trained.lowest_loss)} at step {trained.lowest_loss_step}"),
        ("Parameters", parameters(report)),
        ("Tokens", f"{text.count(trained.tokens)} and {text.share(trained.padding_share)} of padding beside them"),
        ("Time of all steps", text.duration(trained.seconds)),
        ("Peak memory of a process", text.size(trained.peak_memory_bytes)),
    ]
    if trained.throughput and (mfu := trained.throughput.mfu):
        kind = "measured" if mfu.peak_measured else "claimed"
        peak = f"of {text.number(mfu.peak_tflops, 0)} bf16 TFLOP/s a device, {kind}: {mfu.peak_source}"
        formula = f"{mfu.flops_per_token:.3g} FLOPs a token at rows of {text.count(mfu.sequence_length)}"
        rows.append(("MFU", f"{text.share(mfu.value)} {peak}; {formula}"))
    return rows


def parameters(report: Report) -> str:
    model = report.model
    if model.trained_parameters is None:
        return text.parameters(model.parameters)
    trained = text.parameters(model.trained_parameters)
    return f"{text.parameters(model.parameters)} frozen, {trained} trained in the adapter"


def rates(report: Report) -> Table:
    speed = report.training.throughput if report.training else None
    unit = report.hardware.unit
    head: tuple[str, ...] = ("A second", "All together", f"A {unit}")
    cards = (report.hardware.devices_per_card or 1) > 1
    if cards:
        head += ("A card",)

    def row(label: str, rate: Rate, digits: int) -> tuple[str, ...]:
        values = [rate.total, rate.per_device, *([rate.per_card] if cards else [])]
        return (label, *(text.number(value, digits) for value in values))

    if speed is None:
        return Table(head, [])
    return Table(
        head,
        [
            row("Tokens, effective (not padding)", speed.tokens_per_second, 1),
            row("Tokens, padded", speed.padded_tokens_per_second, 1),
            row("Rows", speed.rows_per_second, 2),
        ],
    )


def throughput_says(report: Report) -> str:
    """What the throughput counts, or why there is none."""
    speed = report.training.throughput if report.training else None
    if speed is None:
        return "There is no throughput: it takes a training step after the first, which warms up."
    left = "The first step is" if speed.steps_left_out == 1 else f"The first {speed.steps_left_out} steps are"
    return f"{left} left out of these figures, because everything warms up; {speed.steps_counted} steps are counted."


def batch(report: Report) -> str:
    """The arithmetic of one optimizer step, in words."""
    each = report.batch
    return (
        f"{each.micro_batch_size} (rows of a forward pass) × {each.gradient_accumulation_steps} (accumulated) "
        f"× {each.data_parallel} (data-parallel ranks) = {each.global_batch_size} rows an optimizer step"
    )


def data(report: Report) -> Table:
    rows = [
        (
            SPLIT_NAMES.get(each.name, each.name),
            *(
                text.count(value)
                for value in (each.records, each.documents, each.rows, each.tokens, each.trained_tokens)
            ),
            text.count(each.longest_row),
            text.count(sum(each.dropped.values())),
            text.count(each.cut),
        )
        for each in report.data
    ]
    return Table(
        ("Split", "Records", "Conversations", "Rows", "Tokens", "Trained tokens", "Longest row", "Dropped", "Cut"), rows
    )


def results(report: Report) -> Table:
    rows = [
        (
            each.what,
            each.metric,
            f"{each.stated:g} {each.unit}",
            each.stated_hardware,
            each.stated_source,
            text.number(each.this_run, 2),
        )
        for each in report.results
    ]
    return Table(("What", "Metric", "Published", "On", "Source", "This run"), rows)


def results_say(report: Report) -> str:
    """What the table of published figures compares."""
    says = "Theirs, from the source named, beside this run's where the metric is the same."
    return says + (" A smoke run's are not comparable with them." if report.preset == SMOKE else "")


def provenance(report: Report) -> list[tuple[str, str]]:
    made = report.provenance
    rows = [(MACHINE.get(name, name), text.plain(value)) for name, value in made.machine.items()]
    rows += [("Commit", made.commit or "not a checkout"), ("Python", made.python or text.NONE)]
    rows += sorted(made.versions.items())
    return rows


def _flat(values: dict[str, Any]) -> list[tuple[str, str]]:
    return [(key.replace("_", " "), text.plain(value)) for key, value in values.items()]


def _yaml(values: dict[str, Any]) -> str:
    text: str = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)
    return text
