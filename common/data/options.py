"""What `prepare` is asked to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from common.data import lengths, packing
from common.data.layouts import LAYOUTS
from common.data.templates import TEMPLATES
from common.errors import UserError, did_you_mean
from common.tokenizer.vocabulary import RIGHT_PAD

FORMATS = ("arrow", "jsonl", "mindrecord")
ON_ERROR = ("stop", "skip")
ODD_TURNS = ("stop", "drop", "cut")


def check_choice(option: str, value: str, known: tuple[str, ...]) -> None:
    """Raises UserError when `value` is not one of `known`."""
    if value not in known:
        hint = did_you_mean(value, known)
        raise UserError(f"{option} has no such choice", found=value, expected=", ".join(known), hint=hint)


@dataclass(frozen=True)
class Options:
    """One preparation. Lengths are in tokens."""

    input: str
    output: Path
    tokenizer: str
    template: str
    source: str = "auto"
    columns: Mapping[str, str] = field(default_factory=dict)
    loss_on: str = "answers"
    max_length: int = 2048
    on_long: str = "drop"
    packing: str = "none"
    format: str = "arrow"
    eval_input: str | None = None
    eval_fraction: float | None = None
    eval_count: int | None = None
    system: str | None = None
    prompts: int = 0
    on_error: str = "stop"
    odd_turns: str = "stop"
    seed: int = 0
    workers: int = 0
    pad: str = RIGHT_PAD

    def __post_init__(self) -> None:
        for option, value, known in (
            ("--source", self.source, ("auto", *LAYOUTS)),
            ("--template", self.template, tuple(TEMPLATES)),
            ("--loss-on", self.loss_on, ("answers", "all")),
            ("--on-long", self.on_long, lengths.POLICIES),
            ("--packing", self.packing, packing.METHODS),
            ("--format", self.format, FORMATS),
            ("--on-error", self.on_error, ON_ERROR),
            ("--odd-turns", self.odd_turns, ODD_TURNS),
        ):
            check_choice(option, value, known)
        for option, number, least in (
            ("--max-length", self.max_length, 2),
            ("--prompts", self.prompts, 0),
            ("--workers", self.workers, 0),
            ("--eval-count", self.eval_count, 1),
        ):
            if number is not None and number < least:
                raise UserError(f"{option} is too small", found=number, expected=f"{least} or more")
        if self.eval_fraction is not None and not 0 < self.eval_fraction < 1:
            raise UserError("--eval-fraction is no fraction", found=self.eval_fraction, expected="between 0 and 1")
        given = [o for o in (self.eval_input, self.eval_fraction, self.eval_count) if o is not None]
        if len(given) > 1:
            raise UserError("more than one way to get evaluation data", expected="one --eval-... option")

    @property
    def has_eval(self) -> bool:
        """Whether evaluation data are made beside the training data."""
        return self.eval_input is not None or self.eval_fraction is not None or self.eval_count is not None
