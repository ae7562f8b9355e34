"""Checkpoints that are complete or not used."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

COMPLETE = "complete.json"


@dataclass(frozen=True)
class Checkpoint:
    step: int
    folder: Path


def complete_checkpoints(output: Path) -> list[Checkpoint]:
    """The checkpoints under `output` that were written to the end, oldest first."""
    found = [Checkpoint(json.loads(mark.read_text())["step"], mark.parent) for mark in output.glob(f"*/{COMPLETE}")]
    return sorted(found, key=lambda checkpoint: checkpoint.step)


def last_complete(output: Path, remove_others: bool) -> Checkpoint | None:
    """The newest complete checkpoint; with `remove_others`, half-written ones are deleted."""
    found = complete_checkpoints(output)
    if remove_others:
        for folder in output.glob("checkpoint-*"):
            if folder not in {checkpoint.folder for checkpoint in found}:
                shutil.rmtree(folder)
    return found[-1] if found else None


def mark_complete(folder: Path, step: int) -> None:
    """Say that every rank has written its part of the checkpoint in `folder`."""
    (folder / COMPLETE).write_text(json.dumps({"step": step}) + "\n", encoding="utf-8")
