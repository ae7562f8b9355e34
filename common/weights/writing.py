"""Write files made of tensors, at disk speed, in little memory, each one whole or not at all."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from common.weights.tensors import Extent, Tensor

WORKERS = 2  # numpy and the kernel's copying release the interpreter's lock
COPY_STEP = 32 * 2**20  # bytes copied between two progress reports
_NO_KERNEL_COPY = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM}

Report = Callable[[int], object]  # called with the number of bytes just written, from any worker


@dataclass(frozen=True)
class Piece:
    """A tensor and where in the file its bytes begin."""

    offset: int
    tensor: Tensor


@dataclass(frozen=True)
class OutputFile:
    """A file to be written: bytes at stated offsets, tensors, and the whole size."""

    name: str
    size: int
    headers: tuple[tuple[int, bytes], ...]
    pieces: tuple[Piece, ...]


class _Stop(Exception):
    """Another worker has failed: this one gives up early."""


def write_file(folder: Path, output: OutputFile, report: Report, workers: int = WORKERS) -> None:
    """Write `output` into `folder` under its name in one step, synchronised to the disk."""
    partial = folder / (output.name + ".partial")
    partial.parent.mkdir(parents=True, exist_ok=True)  # a rank's own folder
    target = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        try:
            os.ftruncate(target, output.size)
            _Writer(target, output, report).run(workers)
            os.fsync(target)
        finally:
            os.close(target)
        os.replace(partial, folder / output.name)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


class _Writer:
    def __init__(self, target: int, output: OutputFile, report: Report) -> None:
        self._target = target
        self._output = output
        self._report = report
        self._stop = threading.Event()

    def run(self, workers: int) -> None:
        for offset, content in self._output.headers:
            self._put(memoryview(content), offset)
        # The largest go first, so that the workers end together.
        pieces = sorted(self._output.pieces, key=lambda piece: -piece.tensor.nbytes)
        with ThreadPoolExecutor(workers) as pool:
            futures = [pool.submit(self._write, piece) for piece in pieces]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
            finally:
                # After a failure and on an interrupt: a worker in the midst of gigabytes sees this.
                if not all(future.done() and future.exception() is None for future in futures):
                    self._stop.set()
                for future in futures:
                    future.cancel()
        for future in futures:
            error = None if future.cancelled() else future.exception()
            if error is not None and not isinstance(error, _Stop):
                raise error

    def _write(self, piece: Piece) -> None:
        offset = piece.offset
        extents = piece.tensor.extents()
        if extents is not None:
            for extent in extents:
                self._copy(extent, offset)
                offset += extent.length
            return
        for block in piece.tensor.blocks():
            content = block.reshape(-1).data.cast("B")
            self._put(content, offset)
            self._written(offset, len(content))
            offset += len(content)

    def _copy(self, extent: Extent, offset: int) -> None:
        source = os.open(extent.file, os.O_RDONLY)
        try:
            done = 0
            while done < extent.length:
                step = min(COPY_STEP, extent.length - done)
                count = self._copy_step(source, extent.offset + done, offset + done, step)
                if count == 0:
                    raise OSError(errno.EIO, "the file became shorter while it was read", str(extent.file))
                self._written(offset + done, count)
                done += count
        finally:
            os.close(source)

    def _copy_step(self, source: int, source_offset: int, offset: int, length: int) -> int:
        """Copy up to `length` bytes inside the kernel, or through a buffer where the kernel cannot."""
        try:
            return os.copy_file_range(source, self._target, length, source_offset, offset)
        except OSError as error:
            if error.errno not in _NO_KERNEL_COPY:
                raise
        content = os.pread(source, min(length, 8 * 2**20), source_offset)
        self._put(memoryview(content), offset)
        return len(content)

    def _put(self, content: memoryview, offset: int) -> None:
        done = 0
        while done < len(content):
            done += os.pwrite(self._target, content[done:], offset + done)

    def _written(self, offset: int, count: int) -> None:
        self._report(count)
        if self._stop.is_set():
            raise _Stop
        # Linux begins to write these pages to the disk now, instead of all of them at the end.
        os.posix_fadvise(self._target, offset, count, os.POSIX_FADV_DONTNEED)
