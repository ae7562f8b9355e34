"""Uncompressed zip archives of any size, laid out before their content is written.

Python's zipfile writes one member after the other; here offsets are known in advance, so that
several workers write at once. Format: PKWARE's APPNOTE, sections 4.3 and 4.5 (zip64).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.weights.tensors import Tensor, read_exactly
from common.weights.writing import OutputFile, Piece

ALIGNMENT = 64  # bytes, as torch aligns storages
_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_ZIP64_LOCAL = struct.Struct("<HHQQ")
_PADDING = struct.Struct("<HH")
_MANY = 0xFFFFFFFF
_VERSION = 45  # zip64
_DATE = 0x21  # 1 January 1980: the same model gives the same file
_UTF8 = 0x800


@dataclass(frozen=True)
class _Member:
    name: bytes
    header: int  # offset of the local header
    data: int  # offset of the content
    length: int
    crc: int


def data_offset(file: Path, header: int) -> int:
    """Where the content of the member begins whose local header is at byte `header` of `file`."""
    content = bytearray(_LOCAL.size)
    read_exactly(file, header, memoryview(content))
    *_, name, extra = _LOCAL.unpack(content)
    return header + _LOCAL.size + int(name) + int(extra)


def plan(name: str, members: Sequence[tuple[str, bytes | Tensor]]) -> OutputFile:
    """The archive `name` with `members` (path, content) in order.

    Tensors have no checksum, as with torch.serialization.set_crc32_options(False): torch never
    checks it, and computing it would cost more than all the copying. unzip -t complains of them.
    """
    placed: list[_Member] = []
    headers: list[tuple[int, bytes]] = []
    pieces: list[Piece] = []
    position = 0
    for path, content in members:
        before = position + _LOCAL.size + len(path.encode()) + _ZIP64_LOCAL.size + _PADDING.size
        data = before + -before % ALIGNMENT
        if isinstance(content, bytes):
            member = _Member(path.encode(), position, data, len(content), zlib.crc32(content))
            headers.append((data, content))
        else:
            member = _Member(path.encode(), position, data, content.nbytes, 0)
            pieces.append(Piece(data, content))
        headers.append((position, _local(member)))
        placed.append(member)
        position = data + member.length
    directory = _directory(placed, position)
    headers.append((position, directory))
    return OutputFile(name, position + len(directory), tuple(headers), tuple(pieces))


def _local(member: _Member) -> bytes:
    zip64 = _ZIP64_LOCAL.pack(1, 16, member.length, member.length)
    padding = member.data - member.header - _LOCAL.size - len(member.name) - len(zip64) - _PADDING.size
    extra = zip64 + _PADDING.pack(0x4246, padding) + bytes(padding)  # "FB", torch's own padding field
    fields = (_VERSION, _UTF8, 0, 0, _DATE, member.crc, _MANY, _MANY, len(member.name), len(extra))
    return _LOCAL.pack(b"PK\x03\x04", *fields) + member.name + extra


def _directory(members: Sequence[_Member], start: int) -> bytes:
    parts = []
    for member in members:
        extra = struct.pack("<HHQQQ", 1, 24, member.length, member.length, member.header)
        sizes = (member.crc, _MANY, _MANY, len(member.name), len(extra))
        fields = (_VERSION, _VERSION, _UTF8, 0, 0, _DATE, *sizes, 0, 0, 0, 0, _MANY)
        parts.append(_CENTRAL.pack(b"PK\x01\x02", *fields) + member.name + extra)
    directory = b"".join(parts)
    count, size = len(members), len(directory)
    end64 = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, _VERSION, _VERSION, 0, 0, count, count, size, start)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, start + size, 1)
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, min(count, 0xFFFF), min(count, 0xFFFF), _MANY, _MANY, 0)
    return directory + end64 + locator + end
