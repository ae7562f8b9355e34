"""From what a run directory holds to its figures."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from common.evaluation import result
from common.evaluation.result import Result
from common.report import flops
from common.report.figures import (
    Batch,
    Comparison,
    Evaluation,
    Hardware,
    Leaderboard,
    Mfu,
    Model,
    Place,
    Provenance,
    Rate,
    Report,
    Split,
    Stage,
    Throughput,
    Training,
)
from common.report.reading import Row, Run

REPORT = "report"  # this stage: it is at work while the report is written
TRAIN = "train"
SMOKE = "smoke"
SPLITS = ("train", "eval")
GB = 1e9

# What recipes call a result, and what it is here. The unit that results state for it stands behind.
MEMORY = ("memory", "peak memory")  # GB
TOKENS = ("tokens/s", "tokens per second")  # of all devices
TOKENS_PER_DEVICE = ("tokens/s per device", "tokens per second per device")
TOKENS_PER_CARD = ("tokens/s per card", "tokens per second per card")
ROWS = ("samples/s", "rows/s", "train_samples_per_second")
MFU = ("mfu", "model flops utilization")  # %
LOSS = ("loss", "training loss")


def summarize(run: Run) -> Report:
    """The figures of `run`, as far as it has come."""
    hardware = _hardware(run)
    training = _training(run, hardware) if run.rows else None
    missing = _missing(run)
    plan, known = run.plan, run.recipe
    return Report(
        recipe=plan.recipe,
        summary=known.summary if known else None,
        reproduces=known.reproduces.name if known else None,
        reproduces_source=known.reproduces.source if known else None,
        preset=plan.preset,
        platform=plan.platform,
        platform_summary=run.platform.summary if run.platform else None,
        run=str(run.folder),
        finished=not missing,
        missing=missing,
        notes=_notes(run, training),
        seconds=_seconds(run, training),
        model=_model(run),
        hardware=hardware,
        batch=Batch(**plan.batch.model_dump()),
        stages=[
            Stage(name=each.name, done=each.done, seconds=each.seconds) for each in run.stages if each.name != REPORT
        ],
        training=training,
        evaluation=[Evaluation(**dataclasses.asdict(each)) for each in run.evaluation],
        verdict=result.failed(run.evaluation),
        limits=sum(each.limit is not None for each in run.evaluation),
        leaderboard=_leaderboard(run),
        data=[_split(name, run.data[name]) for name in SPLITS if run.data and isinstance(run.data.get(name), dict)],
        data_options={key: value for key, value in (run.data or {}).items() if key not in SPLITS},
        sections=run.sections,
        results=[
            Comparison(
                what=each.what,
                metric=each.metric,
                unit=each.unit,
                stated=each.value,
                stated_hardware=each.hardware,
                stated_source=each.source,
                this_run=_measured(each.metric, run.evaluation, training),
            )
            for each in (known.results if known else [])
        ],
        settings=plan.settings,
        config=plan.config,
        provenance=Provenance(
            machine=plan.machine,
            commit=plan.commit,
            versions=plan.versions,
            python=plan.python,
            environment=plan.environment,
        ),
    )


def _hardware(run: Run) -> Hardware:
    devices = run.plan.devices.per_node * run.plan.devices.nodes
    per_card = run.platform.devices_per_card if run.platform else None
    return Hardware(
        devices=devices,
        unit="process" if run.platform and run.platform.detect is None else "device",
        nodes=run.plan.devices.nodes,
        devices_per_card=per_card,
        cards=math.ceil(devices / per_card) if per_card else None,
    )


def _seconds(run: Run, training: Training | None) -> float:
    """Of all stages but this one. Training that was resumed took at least as long as its steps."""
    others = sum(stage.seconds or 0.0 for stage in run.stages if stage.name not in (REPORT, TRAIN))
    return others + max(_train_seconds(run), training.seconds if training else 0.0)


def _train_seconds(run: Run) -> float:
    return next((stage.seconds or 0.0 for stage in run.stages if stage.name == TRAIN), 0.0)


def _model(run: Run) -> Model:
    return Model(
        name=run.plan.settings.get("model", {}).get("path"),
        parameters=run.size.parameters if run.size else None,
        trained_parameters=run.adapter_parameters,
        adapter=str(run.adapter) if run.adapter else None,
        merged=str(run.model) if run.model else None,
    )


def _training(run: Run, hardware: Hardware) -> Training:
    rows = run.rows
    finite = [row for row in rows if math.isfinite(row["loss"])]
    lowest = min(finite, key=lambda row: row["loss"]) if finite else None
    tokens, padded = _sum(rows, "tokens"), _sum(rows, "padded_tokens")
    return Training(
        steps=len(rows),
        first_step=int(rows[0]["step"]),
        last_step=int(rows[-1]["step"]),
        first_loss=rows[0]["loss"],
        last_loss=rows[-1]["loss"],
        lowest_loss=lowest["loss"] if lowest else None,
        lowest_loss_step=int(lowest["step"]) if lowest else None,
        tokens=tokens,
        padded_tokens=padded,
        padding_share=1 - tokens / padded if padded else 0.0,
        seconds=_sum(rows, "seconds"),
        peak_memory_bytes=max(row["memory_bytes"] for row in rows),
        throughput=_throughput(run, hardware),
    )


def _throughput(run: Run, hardware: Hardware) -> Throughput | None:
    left_out = flops.warm_up_steps(len(run.rows))
    rows = run.rows[left_out:]
    seconds = _sum(rows, "seconds")
    if seconds <= 0:
        return None

    def rate(amount: float) -> Rate:
        total = amount / seconds
        return Rate(
            total=total,
            per_device=total / hardware.devices,
            per_card=total / hardware.cards if hardware.cards else None,
        )

    tokens = rate(_sum(rows, "tokens"))
    return Throughput(
        steps_left_out=left_out,
        steps_counted=len(rows),
        tokens_per_second=tokens,
        padded_tokens_per_second=rate(_sum(rows, "padded_tokens")),
        rows_per_second=rate(len(rows) * run.plan.batch.global_batch_size),
        mfu=_mfu(run, rows, tokens.total, hardware.devices),
    )


def _mfu(run: Run, rows: list[Row], tokens_per_second: float, devices: int) -> Mfu | None:
    """None where the platform states no peak, or the sizes of model or adapter are not known."""
    peak = run.platform.peak_bf16_tflops if run.platform else None
    lora = trains_adapter(run)
    if peak is None or run.size is None or (lora and run.adapter_parameters is None):
        return None
    length = _sum(rows, "padded_tokens") / (len(rows) * run.plan.batch.global_batch_size)
    each = flops.flops_per_token(run.size, length, frozen=lora, adapter=run.adapter_parameters or 0)
    return Mfu(
        value=flops.mfu(tokens_per_second, each, devices, peak.value),
        flops_per_token=each,
        sequence_length=length,
        peak_tflops=peak.value,
        peak_source=peak.source,
        peak_measured=peak.measured,
    )


def trains_adapter(run: Run) -> bool:
    """Whether LoRA is trained on a frozen base."""
    return run.plan.settings.get("lora", {}).get("rank") is not None


def _split(name: str, content: dict[str, Any]) -> Split:
    counted = ("records", "rows", "documents", "tokens", "trained_tokens", "longest_row", "cut")
    return Split(name=name, dropped=content.get("dropped", {}), **{key: content.get(key) for key in counted})


def _measured(metric: str, evaluation: list[Result], training: Training | None) -> float | None:
    """This run's value of a metric of recipe.yaml's results, in the unit results are stated in."""
    key = metric.lower()
    for each in evaluation:
        if key in (each.metric.lower(), f"{each.task} {each.metric}".lower()) and key not in LOSS:
            return each.after
    if training is None:
        return None
    if key in LOSS:
        return training.last_loss
    if key in MEMORY:
        return training.peak_memory_bytes / GB
    if training.throughput is None:
        return None
    speed = training.throughput
    if key in MFU:
        return 100 * speed.mfu.value if speed.mfu else None
    for names, value in (
        (TOKENS, speed.tokens_per_second.total),
        (TOKENS_PER_DEVICE, speed.tokens_per_second.per_device),
        (TOKENS_PER_CARD, speed.tokens_per_second.per_card),
        (ROWS, speed.rows_per_second.total),
    ):
        if key in names:
            return value
    return None


def _leaderboard(run: Run) -> Leaderboard | None:
    """Of the metrics that this run was evaluated by and others are stated in; the first that is stated orders it."""
    stated = run.recipe.results if run.recipe else []
    ours = {each.metric: _measured(each.metric, [e for e in run.evaluation if e.part is None], None) for each in stated}
    metrics = [metric for metric, value in ours.items() if value is not None]
    if not metrics:
        return None
    places = [Place(who="this run", this_run=True, values={name: ours[name] for name in metrics}, source=None)]
    for who in dict.fromkeys(each.what for each in stated if each.metric in metrics):
        theirs = [each for each in stated if each.what == who and each.metric in metrics]
        values: dict[str, float | None] = dict.fromkeys(metrics)
        values |= {each.metric: each.value for each in theirs}
        places.append(Place(who=who, this_run=False, values=values, source=theirs[0].source))
    places.sort(key=lambda place: _or_last(place.values[metrics[0]]), reverse=True)
    return Leaderboard(metrics=metrics, rows=places)


def _or_last(value: float | None) -> float:
    return -math.inf if value is None else value


def _missing(run: Run) -> list[str]:
    missing = [f"stage {stage.name} is not done" for stage in run.stages if not stage.done and stage.name != REPORT]
    if not run.rows:
        missing.append("no training step is recorded in metrics.jsonl")
    if not run.evaluation:
        missing.append("no evaluation.json: there are no figures of before and after")
    if not run.adapter and not run.model:
        missing.append("neither adapter/ nor model/ has been written")
    return missing


def _notes(run: Run, training: Training | None) -> list[str]:
    """What a reader must know to read the figures rightly."""
    notes = []
    if run.plan.preset == SMOKE:
        notes.append(
            "This is a smoke run: it shows that the whole path works, with a tiny model. "
            "Its figures say nothing about the full size."
        )
    if training and not math.isfinite(training.last_loss):
        first = next(int(row["step"]) for row in run.rows if not math.isfinite(row["loss"]))
        notes.append(f"The training loss is not a number from step {first}: training diverged.")
    if training and 0 < _train_seconds(run) < training.seconds:
        notes.append("Training was resumed: its stage's time is that of the last start, all steps took longer.")
    if run.cut_short:
        notes.append("The last line of metrics.jsonl was cut off when training was killed; it is left out.")
    if run.adapter and not run.model and run.plan.settings.get("export", {}).get("merge") is False:
        notes.append("model/ was not asked for (export.merge is false): the adapter is used on the base model.")
    if run.recipe is None:
        notes.append(
            f"This checkout has no valid recipe {run.plan.recipe}: its summary and stated results are left out."
        )
    if run.platform is None:
        notes.append(f"This checkout has no valid platform {run.plan.platform}: figures per card and MFU are left out.")
    elif training and training.throughput and training.throughput.mfu is None:
        notes.append(f"No MFU: {_why_no_mfu(run)}.")
    return notes


def _why_no_mfu(run: Run) -> str:
    if run.platform and run.platform.peak_bf16_tflops is None:
        return f"platform {run.plan.platform} states no peak to divide by"
    if run.size is None:
        return "no config.json says how large the model is"
    return "the size of the adapter is not known before it is exported"


def _sum(rows: list[Row], field: str) -> float:
    return sum(row[field] for row in rows)
