"""nnScaler's sharded checkpoints, complete or not used: CHECKPOINTS/EPOCH-STEP/RANK.ckpt."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from common.errors import UserError
from common.files import write_json

COMPLETE = "complete.json"


@dataclass(frozen=True)
class Checkpoint:
    step: int
    folder: Path
    ranks: int

    @property
    def files(self) -> list[Path]:
        """The ranks' parts, in their order."""
        return [self.folder / f"{rank}.ckpt" for rank in range(self.ranks)]


def complete_checkpoints(folder: Path) -> list[Checkpoint]:
    """The checkpoints that every rank wrote to the end, oldest first."""
    found = []
    for mark in folder.glob(f"*-*/{COMPLETE}"):
        checkpoint = Checkpoint(folder=mark.parent, **json.loads(mark.read_text(encoding="utf-8")))
        if all(file.exists() for file in checkpoint.files):  # removing an old one may have been interrupted
            found.append(checkpoint)
    return sorted(found, key=lambda checkpoint: checkpoint.step)


def last_complete(folder: Path, remove_others: bool) -> Checkpoint | None:
    """The newest complete checkpoint; with `remove_others`, half-written ones are deleted."""
    found = complete_checkpoints(folder)
    if remove_others:
        for each in folder.glob("*-*"):
            if each not in {checkpoint.folder for checkpoint in found}:
                shutil.rmtree(each)
    return found[-1] if found else None


def mark_complete(folder: Path, step: int, ranks: int) -> None:
    """Say that every rank has written its part of the checkpoint in `folder`."""
    write_json(folder / COMPLETE, {"step": step, "ranks": ranks})


def parts(place: Path) -> list[Path]:
    """The files of a checkpoint: all ranks' of a folder (also `last`), or one merged file.

    Raises UserError where it is neither, or a rank's part is missing.
    """
    if place.is_file():
        return [place]
    found = {int(file.stem): file for file in place.glob("*.ckpt") if file.stem.isdigit()}
    if not found:
        raise UserError("there is no checkpoint", file=place, expected="a folder of RANK.ckpt files, or a merged file")
    if missing := [f"{rank}.ckpt" for rank in range(max(found) + 1) if rank not in found or not found[rank].exists()]:
        raise UserError("parts of the checkpoint are missing", file=place, found=f"no {', no '.join(missing)}")
    return [found[rank] for rank in sorted(found)]


def read(file: Path) -> dict[str, Any]:
    """One part, on the host. Nothing in it runs. Raises UserError where it is no such file, or damaged."""
    try:
        with torch.serialization.safe_globals([slice]):  # which part of a tensor a rank holds
            content: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a cut file ends in one of a dozen exceptions
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError("is not a checkpoint of nnScaler's trainer, or is damaged", file=file, found=first) from None
    return content
