"""Checkpoints that are complete or not there: written aside, renamed when every rank has written its part.

step-N/modeling (Hugging Face layout), optimizer (ColossalAI's), masters (fp32, a file a rank), running_states.json.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from common.errors import RunError
from common.files import write_json

MASTERS = "masters"


@dataclass(frozen=True)
class Checkpoint:
    step: int
    folder: Path


def complete_checkpoints(output: Path) -> list[Checkpoint]:
    """The checkpoints under `output`, oldest first."""
    found = [Checkpoint(int(path.name.removeprefix("step-")), path) for path in output.glob("step-*[0-9]")]
    return sorted(found, key=lambda checkpoint: checkpoint.step)


def last_complete(output: Path) -> Checkpoint | None:
    found = complete_checkpoints(output)
    return found[-1] if found else None


def save(folder: Path, booster: Any, model: Any, optimizer: Any, position: dict[str, int]) -> None:
    """Write the checkpoint `folder`. Every rank takes part."""
    partial = folder.with_name(folder.name + ".partial")
    if dist.get_rank() == 0:
        shutil.rmtree(partial, ignore_errors=True)
        (partial / MASTERS).mkdir(parents=True)
    dist.barrier()
    booster.save_model(model, str(partial / "modeling"), shard=True, use_safetensors=True)
    booster.save_optimizer(optimizer, str(partial / "optimizer"), shard=True)
    if masters := master_weights(optimizer):
        save_file(masters, partial / MASTERS / f"rank-{dist.get_rank():05d}.safetensors")
    dist.barrier()
    if dist.get_rank() == 0:
        write_json(partial / "running_states.json", position)
        partial.rename(folder)
    dist.barrier()


def need_whole(checkpoint: Checkpoint) -> None:
    """Raise RunError where a file of the checkpoint was cut off, as a machine that was lost can leave it."""
    for file in sorted(path for path in checkpoint.folder.rglob("*") if path.is_file()):
        if not is_whole(file):
            raise RunError(
                "this file of the newest checkpoint is cut off",
                file=file,
                found=f"{file.stat().st_size:,} bytes",
                hint=f"remove {checkpoint.folder}: the same command then goes on from the checkpoint before it",
            )


def is_whole(file: Path) -> bool:
    try:
        if file.suffix == ".json":
            json.loads(file.read_text(encoding="utf-8"))
        elif file.suffix == ".safetensors":
            with safe_open(file, "pt"):
                pass
        else:  # torch.save's: a zip file, whose table of contents is at its end
            return zipfile.is_zipfile(file)
    except (SafetensorError, ValueError):
        return False
    return True


def load(checkpoint: Checkpoint, booster: Any, model: Any, optimizer: Any) -> None:
    """Put the checkpoint's state into what was boosted. Raises RunError when it does not fit."""
    folder = checkpoint.folder
    booster.load_model(model, weights_index(folder / "modeling"))
    booster.load_optimizer(optimizer, str(folder / "optimizer"))
    masters = master_weights(optimizer)
    if not masters:
        return
    # ColossalAI makes new ones from the rounded weights: the run would drift from the one that was interrupted
    saved = load_file(folder / MASTERS / f"rank-{dist.get_rank():05d}.safetensors")
    for name, master in masters.items():
        if name not in saved or saved[name].shape != master.shape:
            raise RunError("the checkpoint is of another way of parallelising", file=folder / MASTERS, found=name)
        with torch.no_grad():
            master.copy_(saved[name])


def master_weights(optimizer: Any) -> dict[str, torch.Tensor]:
    """This rank's fp32 weights that the optimizer updates, by number; {} where these are the model's own."""
    if hasattr(optimizer, "param_to_chunk16"):  # Gemini's, in chunks
        chunks = dict.fromkeys(optimizer.param_to_chunk16.values())
        return {str(number): chunk.paired_chunk.payload for number, chunk in enumerate(chunks)}
    maps = getattr(optimizer, "get_master_to_working_map", lambda: None)()
    if not maps:
        return {}
    groups = optimizer.optim.param_groups
    return {str(number): each.data for number, each in enumerate(p for group in groups for p in group["params"])}


def weights_index(folder: Path) -> str:
    return str(next(folder.glob("*.index.json")))


def prune(output: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints, and what was half-written."""
    for path in output.glob("step-*.partial"):
        shutil.rmtree(path)
    for checkpoint in complete_checkpoints(output)[:-keep]:
        shutil.rmtree(checkpoint.folder)


def read_position(checkpoint: Checkpoint) -> dict[str, int]:
    position: dict[str, int] = json.loads((checkpoint.folder / "running_states.json").read_text(encoding="utf-8"))
    return position
