"""The files weights come in: which kind a file is, and its entries, from headers alone."""

from __future__ import annotations

from pathlib import Path

from common.errors import UserError
from common.weights import dtypes, mindspore_ckpt, safetensors_header, torch_files
from common.weights.tensors import Extent, RawTensor

SAFETENSORS, TORCH, CKPT = "safetensors", "torch", "ckpt"
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
_TYPES = {dtype.safetensors: dtype for dtype in dtypes.DTYPES.values()}


def kind_of(file: Path) -> str:
    """What kind of file it is: its name says safetensors, its first bytes tell torch from MindSpore.

    Raises UserError for a file that is missing or empty.
    """
    if not file.is_file():
        raise UserError("the shard is missing", file=file, hint="download it again")
    if file.stat().st_size == 0:
        raise UserError("the shard is empty", file=file, hint="download it again")
    if file.suffix == ".safetensors":
        return SAFETENSORS
    if torch_files.is_archive(file):
        return TORCH
    return CKPT if file.suffix == ".ckpt" else TORCH


def read(file: Path) -> dict[str, RawTensor]:
    """Every tensor in `file` by name. Raises UserError for a file that is missing, broken or truncated."""
    kind = kind_of(file)
    if kind == TORCH:
        return torch_files.read(file)
    if kind == CKPT:
        return mindspore_ckpt.read(file)
    return {
        name: RawTensor(
            name, entry.dtype, _TYPES.get(entry.dtype), entry.shape, (Extent(file, entry.offset, entry.length),)
        )
        for name, entry in safetensors_header.read(file).entries.items()
    }
