"""The figures of one run, typed: what report.json holds. Keys are stable; a change of one raises `version`."""

from __future__ import annotations

from typing import Any, Literal

import pydantic

from common.schema import Strict


class _Figures(Strict):
    """Training that diverged has figures, too: losses that are not numbers."""

    model_config = pydantic.ConfigDict(allow_inf_nan=True)


class Stage(_Figures):
    name: str
    done: bool
    seconds: float | None
    """Of its last start: a resumed training counts from where it was resumed."""


class Batch(_Figures):
    """The arithmetic of one optimizer step, in rows."""

    micro_batch_size: int
    gradient_accumulation_steps: int
    data_parallel: int
    global_batch_size: int


class Hardware(_Figures):
    devices: int
    unit: Literal["device", "process"]
    """What a device is: on a platform without devices of its own, a process."""
    nodes: int
    devices_per_card: int | None
    """None where this checkout does not know the platform."""
    cards: int | None


class Rate(_Figures):
    """Something a second, on all devices together, on one device, and on one card."""

    total: float
    per_device: float
    per_card: float | None


class Mfu(_Figures):
    """Model FLOPs utilization of tokens that are not padding; the formula: common/report/flops.py."""

    value: float
    flops_per_token: float
    sequence_length: float
    """S of the formula: the mean length of a padded row."""
    peak_tflops: float
    """Of one device, dense bf16."""
    peak_source: str
    peak_measured: bool


class Throughput(_Figures):
    steps_left_out: int
    """The first steps, in which everything warms up."""
    steps_counted: int
    tokens_per_second: Rate
    """Effective: tokens that are not padding."""
    padded_tokens_per_second: Rate
    rows_per_second: Rate
    mfu: Mfu | None


class Training(_Figures):
    steps: int
    first_step: int
    last_step: int
    first_loss: float
    last_loss: float
    lowest_loss: float | None
    lowest_loss_step: int | None
    tokens: float
    padded_tokens: float
    padding_share: float
    """Of the padded tokens, 0 to 1."""
    seconds: float
    """The sum over all steps."""
    peak_memory_bytes: float
    """Of one process, the largest of all."""
    throughput: Throughput | None
    """None where no step is left after the warm-up."""


class Evaluation(_Figures):
    """As in evaluation.json."""

    task: str
    metric: str
    split: str
    count: int
    before: float | None
    after: float
    higher_is_better: bool
    samples: list[dict[str, Any]]
    part: str | None
    limit: float | None
    interval: list[float] | None
    regressions: list[dict[str, Any]]


class Section(_Figures):
    """What a stage has to say that no other stage has: STAGE/section.json."""

    title: str
    text: list[str] = []
    """Paragraphs."""
    head: list[str] = []
    rows: list[list[str]] = []
    """A table under `head`."""


class Split(_Figures):
    """What became of the records of the training or the held-out data."""

    name: str
    records: int | None
    rows: int | None
    documents: int | None
    tokens: int | None
    trained_tokens: int | None
    longest_row: int | None
    cut: int | None
    dropped: dict[str, int]


class Comparison(_Figures):
    """A result that recipe.yaml states, beside this run's where it has the same metric."""

    what: str
    metric: str
    unit: str
    stated: float
    stated_hardware: str
    stated_source: str
    this_run: float | None


class Place(_Figures):
    """One row of the leaderboard."""

    who: str
    this_run: bool
    values: dict[str, float | None]
    source: str | None


class Leaderboard(_Figures):
    """This run beside what recipe.yaml states of others in the same metrics; the best first."""

    metrics: list[str]
    """The first is what the rows are in the order of."""
    rows: list[Place]


class Model(_Figures):
    name: str | None
    parameters: int | None
    trained_parameters: int | None
    """Of the adapter; None where the whole model is trained, or nothing is exported yet."""
    adapter: str | None
    """The folder, where it was written."""
    merged: str | None


class Provenance(_Figures):
    machine: dict[str, Any]
    commit: str | None
    versions: dict[str, str]
    python: str | None
    environment: dict[str, str]


class Report(_Figures):
    version: Literal[1] = 1
    recipe: str
    summary: str | None
    reproduces: str | None
    reproduces_source: str | None
    preset: str
    platform: str
    platform_summary: str | None
    run: str
    finished: bool
    missing: list[str]
    notes: list[str]
    seconds: float
    """Of all stages so far; training counts at least the time of its steps."""
    model: Model
    hardware: Hardware
    batch: Batch
    stages: list[Stage]
    training: Training | None
    evaluation: list[Evaluation]
    verdict: str | None
    """What is not kept of what must be, in one sentence; None where nothing is lost, or nothing asked."""
    limits: int
    """Of what is asked to be kept."""
    leaderboard: Leaderboard | None
    data: list[Split]
    data_options: dict[str, Any]
    """Template, lengths, packing and the rest of data/meta.json."""
    sections: list[Section]
    results: list[Comparison]
    settings: dict[str, dict[str, Any]]
    config: dict[str, Any]
    provenance: Provenance
