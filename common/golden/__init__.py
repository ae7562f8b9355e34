"""The same loss everywhere: one tiny model, one file of token batches, two reference curves.

Every recipe trains on them on its own framework and must land on its curve: step 1 within 1e-5, all
20 steps within 1e-3. A planted defect (labels shifted twice, Q/K not permuted, end-of-text masked away,
a wrong norm of the gradients) leaves it.

How a recipe's test uses it, in the recipe's environment (standard library and numpy are enough here):

    golden.prepare(folder)          # folder/model (HF, fp32), folder/adapter (PEFT: A set, B zero),
                                    # folder/data (as the data stage writes it: train/ and meta.json)
    ...                             # train the recipe's real path on them, 20 steps, as `read()` says
    compared = golden.compare("full", losses)          # or "lora"
    golden.record(run, compared, {"transformers": "5.23.0"})     # RUN/golden.json: the report shows it
    assert not compared.problems, compared.problems

How to train: `read().settings` has every value. fp32 throughout; AdamW with bias correction, constant
learning rate, no warm-up, no weight decay, no dropout; gradients clipped to norm 1. Batches in the
file's order, without shuffling: step i takes rows 4i to 4i + 3, in micro-batches and over ranks as the
recipe likes, because every row has as many labels as every other (mean over rows, over ranks and over
tokens are one number; a recipe's own test tells them apart). The loss of a step is the mean over labels
that are not -100, before the update. Labels are not shifted: position t is predicted from t - 1.

Every row is one document of exactly 64 tokens: there is no padding and nothing to pack. It has two
turns, so end-of-text stands inside the row and is trained. A framework that takes rows of length + 1
appends one token whose label is ignored. "lora" has every linear layer of the decoder as target,
its base is frozen and not quantized.

Standard library and numpy only: recipes' environments import this.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from common import environment
from common.errors import RunError, UserError
from common.files import write_json

FOLDER = Path(__file__).parent
INPUT_IDS = FOLDER / "input_ids.npy"
LABELS = FOLDER / "labels.npy"
REFERENCE = FOLDER / "reference.json"
FILE = "golden.json"

STEPS = 20
ROWS = 4
"""Rows of one optimizer step."""
LENGTH = 64
"""Tokens of a row."""
FIRST_STEP_WITHIN = 1e-5
ALL_STEPS_WITHIN = 1e-3

Kind = Literal["full", "lora"]
KINDS: tuple[Kind, ...] = ("full", "lora")


@dataclass(frozen=True)
class Golden:
    """The batches and what the reference found on them."""

    input_ids: npt.NDArray[np.int32]
    """(steps, rows, length)."""
    labels: npt.NDArray[np.int32]
    """(steps, rows, length), -100 where not trained, not shifted."""
    settings: dict[str, dict[str, Any]]
    """By kind: learning_rate, betas, eps, weight_decay, max_grad_norm; for lora also rank and alpha."""
    curves: dict[str, list[float]]
    """By kind: the loss of each step, nats."""
    versions: dict[str, str]
    """What the reference was made with."""


@dataclass(frozen=True)
class Compared:
    """A framework's losses beside the reference."""

    kind: str
    losses: list[float]
    reference: list[float]

    @property
    def differences(self) -> list[float]:
        """|loss - reference| of each step."""
        return [abs(a - b) for a, b in zip(self.losses, self.reference, strict=False)]

    @property
    def problems(self) -> list[str]:
        """What is outside the tolerances, [] where nothing is."""
        found = []
        if len(self.losses) != len(self.reference):
            found.append(f"{len(self.losses)} losses, expected {len(self.reference)}")
        for step, difference in enumerate(self.differences, 1):
            within = FIRST_STEP_WITHIN if step == 1 else ALL_STEPS_WITHIN
            if not difference <= within:  # also what is not a number
                loss, expected = self.losses[step - 1], self.reference[step - 1]
                found.append(f"step {step}: {loss:.6f}, the reference {expected:.6f}, more than {within:g} apart")
        return found


def read() -> Golden:
    """The batches and the reference."""
    reference = json.loads(REFERENCE.read_text(encoding="utf-8"))
    return Golden(
        input_ids=np.load(INPUT_IDS, allow_pickle=False),
        labels=np.load(LABELS, allow_pickle=False),
        settings=reference["settings"],
        curves=reference["curves"],
        versions=reference["versions"],
    )


def compare(kind: Kind, losses: Sequence[float]) -> Compared:
    """`losses` of steps 1, 2, ... beside the reference curve of that kind."""
    if kind not in KINDS:
        raise UserError("there is no such reference curve", found=kind, expected=" or ".join(KINDS))
    return Compared(kind, [float(loss) for loss in losses], read().curves[kind])


def record(folder: Path, compared: Compared, versions: Mapping[str, str]) -> Path:
    """Write `folder`/golden.json, which the report of that run shows as a table; `versions` of the framework."""
    content = {
        "kind": compared.kind,
        "passed": not compared.problems,
        "first_difference": compared.differences[0] if compared.differences else None,
        "largest_difference": max(compared.differences, default=None),
        "losses": compared.losses,
        "reference": compared.reference,
        "versions": dict(versions),
    }
    write_json(folder / FILE, content)
    return folder / FILE


def section(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """What the report shows of a golden.json: the losses beside the reference, step by step.

    Raises KeyError, TypeError or ValueError for what `record` did not write.
    """
    compared = Compared(recorded["kind"], recorded["losses"], recorded["reference"])
    versions = ", ".join(f"{name} {version}" for name, version in recorded["versions"].items())
    steps = range(1, len(compared.differences) + 1)
    rows = zip(steps, compared.losses, compared.reference, compared.differences, strict=False)
    within = f"step 1 within {FIRST_STEP_WITHIN:g}, every step within {ALL_STEPS_WITHIN:g}"
    outcome = f"The losses are on the reference curve ({within})." if not compared.problems else "Not on the curve: "
    return {
        "title": f"The same loss as everywhere: {compared.kind}",
        "text": [outcome + "; ".join(compared.problems), f"Made with {versions}."],
        "head": ["Step", "Loss", "Reference", "Difference"],
        "rows": [[str(n), f"{loss:.6f}", f"{expected:.6f}", f"{apart:.1e}"] for n, loss, expected, apart in rows],
    }


def prepare(folder: Path) -> None:
    """Write model/, adapter/ and data/ into `folder`, which is not there yet.

    Whatever Python calls this, the light environment does it, as it does in a run. Raises RunError.
    """
    command = [str(environment.ensure(environment.light_spec())), "-m", "common.golden", str(folder.absolute())]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=environment.ROOT)
    if ran.returncode:
        raise RunError("the golden model could not be written", found=ran.stderr.strip())
