"""Files that appear whole or not at all, and what identifies their content.

Standard library only: recipes' environments import this too.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from common.errors import UserError

HASH_WHOLE_UP_TO = 64 * 2**20  # bytes; larger files are identified by size, time and both ends


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` in one step: a reader sees the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: object) -> None:
    """Write `value` as JSON (UTF-8, two spaces) to `path` in one step."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def remove(path: Path) -> None:
    """Remove a file or a directory tree; nothing happens where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def keep_others_out(descriptor: int, path: Path) -> None:
    """Until `descriptor`, of the file or directory `path`, is closed nobody else gets past this for the same path.

    Raises UserError where another command is writing there.
    """
    hint = "wait for its end, or choose another output"
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        ours = os.path.samestat(os.fstat(descriptor), os.stat(path))  # noqa: PTH116 (as fstat)
    except (BlockingIOError, FileNotFoundError):
        ours = False  # not found: it was finished, or let go, just now
    except OSError:
        return  # a file system without locks
    if not ours:
        raise UserError("another command is writing this output", file=path, hint=hint)


@contextlib.contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Make `directory`, if it is not there, and keep other commands out of it; raises UserError while one is in it."""
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        keep_others_out(descriptor, directory)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def whole_directory(target: Path) -> Iterator[Path]:
    """A directory `target.partial` to write into, renamed to `target` when the block ends well.

    When the block raises, the partial directory is removed. Raises UserError when `target` exists
    and is not an empty directory, and while another process writes it.
    """
    target = target.resolve()  # "." has no name to add ".partial" to, and a link cannot be replaced by a directory
    if target.is_dir() and any(target.iterdir()):
        raise UserError("the output exists and is not empty", file=target, hint="remove it, or choose another output")
    if target.exists() and not target.is_dir():
        raise UserError("the output exists and is a file", file=target, hint="remove it, or choose another output")
    if target.is_mount():  # found out now, not when the work is done
        raise UserError(
            "the output is a mount point, which cannot be replaced", file=target, hint="name a folder in it"
        )
    partial = target.with_name(target.name + ".partial")
    if not partial.is_dir() or partial.is_symlink():
        remove(partial)
    with alone(partial):
        try:
            for left in partial.iterdir():
                remove(left)
            yield partial
            os.rename(partial, target)  # takes the place of an empty directory
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def fingerprint(path: Path) -> str:
    """What identifies the content of a file or a directory tree, as "sha256:...".

    A file up to 64 MiB is hashed whole; a larger one by its size, modification time, first and last
    MiB, because a 140 GB model is not read twice to see that it has not changed.
    """
    digest = hashlib.sha256()
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    for file in files:
        size = file.stat().st_size
        digest.update(os.fsencode(f"{file.relative_to(path) if path.is_dir() else ''}\0{size}\0"))
        with open(file, "rb") as stream:
            if size <= HASH_WHOLE_UP_TO:
                while block := stream.read(2**20):
                    digest.update(block)
            else:
                digest.update(str(file.stat().st_mtime_ns).encode())
                digest.update(stream.read(2**20))
                stream.seek(-(2**20), os.SEEK_END)
                digest.update(stream.read(2**20))
    return "sha256:" + digest.hexdigest()
