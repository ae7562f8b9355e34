"""metrics.jsonl: one JSON object a step, written by rank 0; read by progress, report and tests.

Standard library only: recipes' environments import this.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from common.errors import UserError

# What a row holds. All counts and sums are over all ranks and micro-batches of the step.
FIELDS = {
    "step": "optimizer steps done, from 1",
    "loss": "mean negative log-likelihood per trained token, nats",
    "learning_rate": "as used in this step",
    "grad_norm": "L2 norm of the gradient before clipping",
    "tokens": "tokens that are not padding",
    "padded_tokens": "tokens with padding: rows times row length",
    "seconds": "wall-clock time of this step",
    "memory_bytes": "peak memory of a rank so far, the largest of all ranks",
}


class MetricsWriter:
    """Appends rows to metrics.jsonl; rows after `resume_step` are cut off first.

    A run that is killed and resumed from the checkpoint of step N writes steps N+1, N+2, ... again: the
    file holds each step once.
    """

    def __init__(self, path: Path, resume_step: int) -> None:
        kept = [row for row in read(path) if row["step"] <= resume_step]
        partial = path.with_name(path.name + ".partial")
        partial.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        partial.replace(path)
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - open as long as training runs

    def write(self, row: Mapping[str, float]) -> None:
        """Append one row. Raises ValueError when its keys are not those of FIELDS."""
        if row.keys() != FIELDS.keys():
            raise ValueError(f"a row of metrics.jsonl has the keys {', '.join(FIELDS)}; got {', '.join(row)}")
        self._file.write(json.dumps(dict(row)) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read(path: Path) -> list[dict[str, float]]:
    """The rows of metrics.jsonl, [] where there is none.

    A last line that a kill has cut is left out. Raises UserError for any other line that is broken.
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            if number < len(lines):
                raise UserError("is not a row of metrics", file=path, line=number, found=line[:80]) from None
    return rows
