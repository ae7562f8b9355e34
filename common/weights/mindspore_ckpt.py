"""MindSpore's .ckpt files: read by their headers alone, and written, without MindSpore or protobuf.

The file is one protobuf message (MindSpore's checkpoint.proto):
    Checkpoint { repeated Value value = 1; }
    Value { string tag = 1; TensorProto tensor = 2; }
    TensorProto { repeated int64 dims = 1; string tensor_type = 2; bytes tensor_content = 3; }
A tensor over 512 MiB is split over consecutive values of the same tag, each with the whole dims.
A CRC may follow: "crc_num" and ten bytes.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import NamedTuple

from common.errors import UserError
from common.weights.dtypes import DTYPES
from common.weights.tensors import Extent, RawTensor, Tensor
from common.weights.views import Rows
from common.weights.writing import OutputFile, Piece

CHUNK = 512 * 2**20  # bytes of content in one value, as MindSpore splits
_VARINT, _BYTES = 0, 2  # wire types
_TYPES = {dtype.mindspore: dtype for dtype in DTYPES.values()}
_ITEM_SIZES = {
    **dict.fromkeys(("Bool", "Int8", "UInt8", "Int4"), 1),
    **dict.fromkeys(("Int16", "UInt16", "Float16", "BFloat16"), 2),
    **dict.fromkeys(("Int32", "UInt32", "Float32"), 4),
    **dict.fromkeys(("Int64", "UInt64", "Float64"), 8),
}
_CRC_MARK = b"crc_num"
_CRC_LENGTH = len(_CRC_MARK) + 10
_HEADER_LIMIT = 4096  # bytes before a tensor's content: tag, dims, type


class _Broken(Exception):
    """The bytes at hand are no such message."""


class _Value(NamedTuple):
    tag: str
    dims: tuple[int, ...]
    type: str
    content: Extent


def read(file: Path) -> dict[str, RawTensor]:
    """Every tensor of the checkpoint `file`, in its order; strings and map parameters are left out.

    Raises UserError when the file is empty, truncated or something else, or when a tensor's content
    does not match its dims: a file cut between two messages would otherwise pass for a whole one.
    """
    values: dict[str, list[_Value]] = {}
    with open(file, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        end = size - _trailer(stream.fileno(), size)
        position = 0
        while position < end:
            head = os.pread(stream.fileno(), _HEADER_LIMIT, position)
            try:
                value, position = _value(head, position, end, file)
            except _Broken as error:
                hint = "the file is truncated, encrypted, or no MindSpore checkpoint"
                problem = f"the checkpoint cannot be read at byte {position}: {error}"
                raise UserError(problem, file=file, found=f"{size} bytes", hint=hint) from None
            if value is not None:
                values.setdefault(value.tag, []).append(value)
    if not values:
        raise UserError("the checkpoint is empty", file=file, found=f"{size} bytes")
    return {tag: _tensor(tag, parts, file) for tag, parts in values.items()}


def _trailer(descriptor: int, size: int) -> int:
    if size < _CRC_LENGTH:
        return 0
    return _CRC_LENGTH if os.pread(descriptor, len(_CRC_MARK), size - _CRC_LENGTH) == _CRC_MARK else 0


def _tensor(tag: str, parts: list[_Value], file: Path) -> RawTensor:
    first = parts[0]
    shape = () if first.dims == (0,) else first.dims
    found = sum(part.content.length for part in parts)
    expected = prod(shape) * _ITEM_SIZES.get(first.type, 0)
    if any(part.dims != first.dims or part.type != first.type for part in parts) or found != expected:
        raise UserError(
            f"the content of {tag!r} does not match its shape",
            file=file,
            found=f"{found} bytes",
            expected=f"{expected} bytes for {first.type} {list(shape)}",
            hint="the file is truncated: take an earlier checkpoint",
        )
    return RawTensor(tag, first.type, _TYPES.get(first.type), shape, tuple(part.content for part in parts))


def _value(head: bytes, start: int, end: int, file: Path) -> tuple[_Value | None, int]:
    """The value whose message begins with `head` at byte `start`, and where the next one begins."""
    number, wire, at = _key(head, 0)
    if (number, wire) != (1, _BYTES):
        raise _Broken("no value begins here")
    length, at = _varint(head, at)
    finish = start + at + length
    if finish > end:
        raise _Broken(f"a value of {length} bytes reaches beyond the end")
    tag, tensor = "", None
    while start + at < finish:
        number, wire, at = _key(head, at)
        if wire != _BYTES:
            raise _Broken("an unknown field")
        length, at = _varint(head, at)
        if number == 1:
            tag, at = _text(head, at, length), at + length
        else:
            if start + at + length != finish:
                raise _Broken("the tensor does not end where its value does")
            tensor = (number, at)
            break
    if tensor is None:
        raise _Broken("a value without a tensor")
    number, at = tensor
    if number != 2:
        return None, finish  # a map parameter: embedding tables of recommenders
    dims, kind = [], ""
    while start + at < finish:
        number, wire, at = _key(head, at)
        if number == 1 and wire == _VARINT:
            dim, at = _varint(head, at)
            dims.append(dim)
            continue
        if wire != _BYTES:
            raise _Broken("an unknown field")
        length, at = _varint(head, at)
        if number == 1:  # packed dims
            stop = at + length
            while at < stop:
                dim, at = _varint(head, at)
                dims.append(dim)
        elif number == 2:
            kind, at = _text(head, at, length), at + length
        elif number == 3:
            if start + at + length != finish:
                raise _Broken("the content does not end where its tensor does")
            if kind == "str":
                return None, finish
            return _Value(tag, tuple(dims), kind, Extent(file, start + at, length)), finish
        else:
            raise _Broken("an unknown field")
    raise _Broken("a tensor without content")


def _key(data: bytes, at: int) -> tuple[int, int, int]:
    value, at = _varint(data, at)
    return value >> 3, value & 7, at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        if at >= len(data):
            raise _Broken("the header ends early")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise _Broken("a number is too long")


def _text(data: bytes, at: int, length: int) -> str:
    if at + length > len(data):
        raise _Broken("the header ends early")
    try:
        return data[at : at + length].decode()
    except UnicodeDecodeError:
        raise _Broken("a name is not UTF-8") from None


def plan(name: str, tensors: Mapping[str, Tensor]) -> OutputFile:
    """A checkpoint file called `name` that holds `tensors`, laid out as MindSpore writes it."""
    headers: list[tuple[int, bytes]] = []
    pieces: list[Piece] = []
    position = 0
    for tag, tensor in tensors.items():
        step = max(1, CHUNK // tensor.row_bytes)
        for start in range(0, tensor.shape[0], step):
            part = tensor if step >= tensor.shape[0] else Rows(tensor, start, min(start + step, tensor.shape[0]))
            header = _header(tag, tensor, part.nbytes)
            headers.append((position, header))
            position += len(header)
            pieces.append(Piece(position, part))
            position += part.nbytes
    return OutputFile(name, position, tuple(headers), tuple(pieces))


def _header(tag: str, tensor: Tensor, length: int) -> bytes:
    """Everything of a value message before its content of `length` bytes."""
    dims = b"".join(b"\x08" + _encode(size) for size in tensor.shape)
    kind = tensor.dtype.mindspore.encode()
    proto = dims + b"\x12" + _encode(len(kind)) + kind + b"\x1a" + _encode(length)
    name = b"\x0a" + _encode(len(tag.encode())) + tag.encode()
    value = name + b"\x12" + _encode(len(proto) + length) + proto
    return b"\x0a" + _encode(len(value) + length) + value


def _encode(number: int) -> bytes:
    parts = []
    while number >= 0x80:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return struct.pack(f"{len(parts) + 1}B", *parts, number)
