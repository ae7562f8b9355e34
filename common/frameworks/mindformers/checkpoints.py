"""The checkpoints that MindFormers has left: which are whole, and which step each one is of.

Read by their headers alone; needs neither MindSpore nor MindFormers. What is known of them: names start
over when training is resumed (`-1_5` may be step 15), so only `step_num` inside the file counts; a file
cut at the end of a value loads without a word, so the values that are written last must be there.
"""

from __future__ import annotations

import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path

from common.errors import RunError, UserError
from common.weights import mindspore_ckpt
from common.weights.tensors import RawTensor

STEP = "step_num"
AT_THE_END = {"epoch_num", STEP, "loss_scale", "global_batch_size"}  # what MindFormers writes after the tensors
_RANK = re.compile(r"rank_(\d+)$")


@dataclass(frozen=True)
class Checkpoint:
    step: int
    """Optimizer steps done."""
    files: tuple[Path, ...]
    """One for each rank, in order."""


def last_whole(folder: Path, ranks: int) -> Checkpoint | None:
    """The newest step of which every rank has a whole file under `folder`/rank_N; None where there is none."""
    by_rank = [steps_of(folder / f"rank_{rank}") for rank in range(ranks)]
    common = set(by_rank[0]).intersection(*by_rank[1:])
    if not common:
        return None
    step = max(common)
    return Checkpoint(step, tuple(files[step] for files in by_rank))


def ranks_in(folder: Path) -> int:
    """How many ranks have checkpoints under `folder`."""
    numbers = [int(match[1]) for path in folder.glob("rank_*") if (match := _RANK.search(path.name))]
    return max(numbers, default=-1) + 1


def steps_of(folder: Path) -> dict[int, Path]:
    """The whole checkpoints of one rank, by step; of two of the same step, the newer."""
    found = {}
    for file in sorted(folder.glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns):
        try:
            tensors = mindspore_ckpt.read(file)
        except UserError:
            continue  # cut short
        if tensors.keys() >= AT_THE_END:
            found[_step(tensors[STEP])] = file
    return found


def _step(tensor: RawTensor) -> int:
    extent = tensor.extents[0]
    with open(extent.file, "rb") as stream:
        content = os.pread(stream.fileno(), extent.length, extent.offset)
    return int(struct.unpack({4: "<i", 8: "<q"}[len(content)], content)[0])


def keep_only(folder: Path, kept: Checkpoint | None) -> None:
    """Remove every checkpoint that is not `kept`: what was cut short, and what would be taken for newer later."""
    wanted = set(kept.files) if kept else set()
    for file in folder.glob("rank_*/*.ckpt*"):
        if file not in wanted:
            file.unlink()


def need_last(folder: Path, hint: str = "train first") -> Checkpoint:
    """The newest whole checkpoint. Raises RunError where there is none."""
    found = last_whole(folder, max(ranks_in(folder), 1))
    if found is None:
        raise RunError("there is no whole checkpoint", file=folder, hint=hint)
    return found
