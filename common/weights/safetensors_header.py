"""Headers of safetensors files, read and checked without touching the tensors.

The format (huggingface.co/docs/safetensors): 8 bytes, the header's length as a little-endian
unsigned integer; the header, JSON: {name: {dtype, shape, data_offsets: [begin, end]}}; the data.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError

HEADER_LIMIT = 100_000_000  # bytes, the format's own limit
METADATA = "__metadata__"
_NAMES_BY_SIZE = {
    1: ("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3"),
    2: ("U16", "I16", "F16", "BF16"),
    4: ("U32", "I32", "F32"),
    8: ("U64", "I64", "F64"),
}
ITEM_SIZES = {name: size for size, names in _NAMES_BY_SIZE.items() for name in names}


@dataclass(frozen=True)
class Entry:
    """One tensor in a file: `offset` counts bytes from the start of the file."""

    name: str
    dtype: str  # the format's name: F32, BF16, ...
    shape: tuple[int, ...]
    offset: int
    length: int


@dataclass(frozen=True)
class Header:
    """A file's tensors, in the order of their data, and its metadata."""

    entries: dict[str, Entry]
    metadata: dict[str, str]


def read(file: Path) -> Header:
    """The header of `file`. Raises UserError when it is missing, truncated or contradicts the file's size."""
    if not file.is_file():
        raise UserError("the shard is missing", file=file, hint="download it again")
    with open(file, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        prefix = stream.read(8)
        if len(prefix) < 8:
            problem = "the shard is truncated: it has no whole header length"
            raise UserError(problem, file=file, found=f"{size} bytes", expected="more than 8 bytes")
        (length,) = struct.unpack("<Q", prefix)
        if length > min(size - 8, HEADER_LIMIT):
            problem = "the header is longer than the file" if length > size - 8 else "the header is too long"
            found, hint = f"a header of {length} bytes in a file of {size}", "truncated, or not a safetensors file"
            raise UserError(problem, file=file, found=found, hint=hint)
        raw = _parse(stream.read(length), file)
    metadata = raw.pop(METADATA, None) or {}
    entries = [_entry(name, value, 8 + length, file) for name, value in raw.items()]
    entries.sort(key=lambda entry: (entry.offset, entry.length))
    end = 8 + length
    for entry in entries:
        if entry.offset != end:
            raise UserError(
                f"tensor {entry.name!r} does not begin where the one before it ends",
                file=file,
                found=f"byte {entry.offset}",
                expected=f"byte {end}",
            )
        end += entry.length
    if end != size:
        raise UserError(
            "the shard is truncated" if end > size else "the shard has bytes after its last tensor",
            file=file,
            found=f"{size} bytes",
            expected=f"{end} bytes",
            hint="download it again",
        )
    return Header({entry.name: entry for entry in entries}, metadata)


def _parse(text: bytes, file: Path) -> dict[str, Any]:
    try:
        raw = json.loads(text)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError("the header is not JSON", file=file, found=str(error)) from None
    if not isinstance(raw, dict):
        raise UserError("the header is not a JSON object", file=file, found=type(raw).__name__)
    return raw


def _entry(name: str, value: Any, start: int, file: Path) -> Entry:
    try:
        dtype, shape = value["dtype"], tuple(value["shape"])
        begin, end = value["data_offsets"]
        whole = all(type(number) is int and number >= 0 for number in (*shape, begin, end))
    except (KeyError, TypeError, ValueError):
        whole = False
    if not whole:
        expected = "dtype, shape and data_offsets, whole numbers"
        raise UserError(f"the header entry of {name!r} is broken", file=file, found=value, expected=expected)
    if dtype not in ITEM_SIZES:
        raise UserError(f"tensor {name!r} has an unknown dtype", file=file, found=dtype, expected=", ".join(ITEM_SIZES))
    length = ITEM_SIZES[dtype]
    for size in shape:
        length *= size
    if end - begin != length:
        raise UserError(
            f"tensor {name!r} has a length that contradicts its shape",
            file=file,
            found=f"{end - begin} bytes",
            expected=f"{length} bytes for {dtype} {list(shape)}",
        )
    return Entry(name, dtype, shape, start + begin, length)


def encode(tensors: Iterable[tuple[str, str, tuple[int, ...]]], metadata: Mapping[str, str]) -> bytes:
    """The leading bytes of a file that holds `tensors` (name, dtype, shape), data in this order."""
    raw: dict[str, Any] = {METADATA: dict(metadata)} if metadata else {}
    begin = 0
    for name, dtype, shape in tensors:
        length = ITEM_SIZES[dtype]
        for size in shape:
            length *= size
        raw[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, begin + length]}
        begin += length
    text = json.dumps(raw, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data begins at a multiple of 8, as the format asks
    return struct.pack("<Q", len(text)) + text
