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


def data_offset(file: Path, header: int) -> int:
    """Where the content of the member begins whose local header is at byte `header` of `file`."""
    content = bytearray(_LOCAL.size)
    read_exactly(file, header, memoryview(content))
    *_, name, extra = _LOCAL.unpack(content)
    return header + _LOCAL.size + int(name) + int(extra)


def plan(name: str, members: Sequence[tuple[str, bytes | Tensor]]) -> OutputFile:
    """The archive `name` with `members` (path, content) in order. Checksums are filled in after writing."""
    placed: list[_Member] = []
    headers: list[tuple[int, bytes]] = []
    pieces: list[Piece] = []
    known: dict[int, int] = {}  # member number → CRC of what is known already
    position = 0
    for path, content in members:
        length = len(content) if isinstance(content, bytes) else content.nbytes
        before = position + _LOCAL.size + len(path.encode()) + 20 + 4
        data = before + -before % ALIGNMENT
        placed.append(_Member(path.encode(), position, data, length))
        if isinstance(content, bytes):
            headers.append((data, content))
            known[len(placed) - 1] = zlib.crc32(content)
        else:
            pieces.append(Piece(data, content))
        position = data + length

    def finish(checksums: Sequence[int]) -> list[tuple[int, bytes]]:
        remaining = iter(checksums)
        crcs = [known[number] if number in known else next(remaining) for number in range(len(placed))]
        local = [(member.header, _local(member, crc)) for member, crc in zip(placed, crcs, strict=True)]
        return [*local, (position, _directory(placed, crcs, position))]

    size = position + len(_directory(placed, [0] * len(placed), position))
    return OutputFile(name, size, tuple(headers), tuple(pieces), finish)


def _local(member: _Member, crc: int) -> bytes:
    zip64 = struct.pack("<HHQQ", 1, 16, member.length, member.length)
    padding = member.data - member.header - _LOCAL.size - len(member.name) - len(zip64) - 4
    extra = zip64 + struct.pack("<HH", 0x4246, padding) + bytes(padding)  # "FB", torch's own padding field
    fields = (_VERSION, _UTF8, 0, 0, _DATE, crc, _MANY, _MANY, len(member.name), len(extra))
    return _LOCAL.pack(b"PK\x03\x04", *fields) + member.name + extra


def _directory(members: Sequence[_Member], crcs: Sequence[int], start: int) -> bytes:
    parts = []
    for member, crc in zip(members, crcs, strict=True):
        extra = struct.pack("<HHQQQ", 1, 24, member.length, member.length, member.header)
        sizes = (crc, _MANY, _MANY, len(member.name), len(extra))
        fields = (_VERSION, _VERSION, _UTF8, 0, 0, _DATE, *sizes, 0, 0, 0, 0, _MANY)
        parts.append(_CENTRAL.pack(b"PK\x01\x02", *fields) + member.name + extra)
    directory = b"".join(parts)
    count, size = len(members), len(directory)
    end64 = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, _VERSION, _VERSION, 0, 0, count, count, size, start)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, start + size, 1)
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, min(count, 0xFFFF), min(count, 0xFFFF), _MANY, _MANY, 0)
    return directory + end64 + locator + end
