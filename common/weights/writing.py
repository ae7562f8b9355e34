"""Write files made of tensors, at disk speed, in little memory, each one whole or not at all."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from common.weights.tensors import Extent, Tensor

WORKERS = 2  # numpy and the kernel's copying release the interpreter's lock
COPY_STEP = 64 * 2**20  # bytes copied between two progress reports
_NO_KERNEL_COPY = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM}

Report = Callable[[int], object]  # called with the number of bytes just written, from any worker


@dataclass(frozen=True)
class Piece:
    """A tensor and where in the file its bytes begin."""

    offset: int
    tensor: Tensor


@dataclass(frozen=True)
class OutputFile:
    """A file to be written: bytes at stated offsets (headers), tensors, and the whole size."""

    name: str
    size: int
    headers: tuple[tuple[int, bytes], ...]
    pieces: tuple[Piece, ...]


class _Stop(Exception):
    """Another worker has failed: this one gives up early."""


def write_file(folder: Path, output: OutputFile, report: Report, workers: int = WORKERS) -> None:
    """Write `output` into `folder` under its name in one step, synchronised to the disk.

    Largest tensors go first so that the workers end together.
    """
    partial = folder / (output.name + ".partial")
    target = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
    stop = threading.Event()
    try:
        os.ftruncate(target, output.size)
        for offset, content in output.headers:
            _write_exactly(target, memoryview(content), offset)
        pieces = sorted(output.pieces, key=lambda piece: -piece.tensor.nbytes)

        def write(piece: Piece) -> None:
            _write_piece(target, piece, report, stop)

        if workers == 1 or len(pieces) < 2:
            for piece in pieces:
                write(piece)
        else:
            _in_parallel(write, pieces, workers, stop)
        os.fsync(target)
    except BaseException:
        os.close(target)
        partial.unlink(missing_ok=True)
        raise
    os.close(target)
    os.replace(partial, folder / output.name)


def _in_parallel(write: Callable[[Piece], None], pieces: Sequence[Piece], workers: int, stop: threading.Event) -> None:
    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(write, piece) for piece in pieces]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            # On an interrupt too: a worker that is copying gigabytes sees this within a step.
            if not all(future.done() and future.exception() is None for future in futures):
                stop.set()
            for future in futures:
                future.cancel()
    for future in futures:
        error = None if future.cancelled() else future.exception()
        if error is not None and not isinstance(error, _Stop):
            raise error


def _write_piece(target: int, piece: Piece, report: Report, stop: threading.Event) -> None:
    extents = piece.tensor.extents()
    offset = piece.offset
    if extents is not None:
        for extent in extents:
            _copy(extent, target, offset, report, stop)
            offset += extent.length
        return
    for block in piece.tensor.blocks():
        if stop.is_set():
            raise _Stop
        content = block.data.cast("B")
        _write_exactly(target, content, offset)
        offset += len(content)
        report(len(content))


def _copy(extent: Extent, target: int, offset: int, report: Report, stop: threading.Event) -> None:
    source = os.open(extent.file, os.O_RDONLY)
    try:
        done = 0
        while done < extent.length:
            if stop.is_set():
                raise _Stop
            step = min(COPY_STEP, extent.length - done)
            count = _copy_step(source, extent.offset + done, target, offset + done, step)
            if count == 0:
                raise OSError(errno.EIO, "the file became shorter while it was read", str(extent.file))
            done += count
            report(count)
    finally:
        os.close(source)


def _copy_step(source: int, source_offset: int, target: int, offset: int, length: int) -> int:
    """Copy up to `length` bytes inside the kernel, or through a buffer where the kernel cannot."""
    try:
        return os.copy_file_range(source, target, length, source_offset, offset)
    except OSError as error:
        if error.errno not in _NO_KERNEL_COPY:
            raise
    content = os.pread(source, min(length, 8 * 2**20), source_offset)
    _write_exactly(target, memoryview(content), offset)
    return len(content)


def _write_exactly(target: int, content: memoryview, offset: int) -> None:
    done = 0
    while done < len(content):
        done += os.pwrite(target, content[done:], offset + done)
