"""What became of the records: how many, which were left out and why."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path


def rejects_of(output: Path) -> Path:
    """The list of what is not in the file `output`, beside it."""
    return output.with_name(output.name + ".rejects.jsonl")


@dataclass
class Reject:
    """One record that is not in the output, and why."""

    file: str
    line: int
    reason: str
    found: str | None = None


@dataclass
class Counts:
    """What became of the records."""

    records: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    cut: int = 0

    def drop(self, reason: str, count: int) -> None:
        """Count `count` records as dropped for `reason`."""
        if count:
            self.dropped[reason] = self.dropped.get(reason, 0) + count

    def add(self, other: Counts) -> None:
        """Add the counts of another part."""
        self.records += other.records
        self.cut += other.cut
        for reason, count in other.dropped.items():
            self.drop(reason, count)


def write_rejects(path: Path, rejects: Iterable[Reject]) -> None:
    """Append rejects to `path` as JSON lines; no file is made for none."""
    lines = [json.dumps(dataclasses.asdict(reject), ensure_ascii=False) + "\n" for reject in rejects]
    if lines:
        with open(path, "a", encoding="utf-8") as file:
            file.writelines(lines)


def describe(counts: Counts) -> str:
    """The counts in a few words."""
    dropped = ", ".join(f"{count} {reason}" for reason, count in counts.dropped.items())
    return f"{counts.records} records" + (f": {dropped}" if dropped else "")
