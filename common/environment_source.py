"""Distributions that are on no package index: installed from their repository, or from where a variable says.

Standard library only, and no import from the rest of the project: this runs in whatever Python there is.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NOT_SOURCE = (".git", "build", "dist", "*.egg-info", "__pycache__", "*.so")


class EnvironmentFailure(Exception):
    """An environment could not be made; the message says what to do."""


@dataclass(frozen=True)
class Source:
    """A distribution that is on no package index: installed from its repository, or from where a variable says."""

    name: str
    url: str
    """git+https://HOST/REPOSITORY@TAG, as pip takes it."""
    variable: str
    """The environment variable that may name a checkout, an sdist or a wheel to be used instead."""

    def given(self) -> Path | None:
        """What the variable names. Raises EnvironmentFailure when that is not there."""
        value = os.environ.get(self.variable)
        if not value:
            return None
        path = Path(value).absolute()
        if not path.exists():
            raise EnvironmentFailure(
                f"{self.variable} names what is not there\n"
                f"  found:    {path}\n"
                f"  expected: a checkout, an sdist or a wheel of {self.name} ({self.url})\n"
                f"  to do:    name one, or unset {self.variable}: the repository is then asked"
            )
        return path

    def content(self) -> str:
        """What identifies the code that would be installed."""
        path = self.given()
        return self.url if path is None else _content(path)

    def need(self) -> None:
        """Raise EnvironmentFailure where neither the variable nor the repository leads to the code."""
        if self.given() is not None:
            return
        address, _, tag = self.url.removeprefix("git+").rpartition("@")
        try:
            asked = subprocess.run(
                ["git", "ls-remote", "--exit-code", address, tag],
                capture_output=True,
                text=True,
                timeout=30,
                env={**os.environ, "GIT_TERMINAL_PROMPT": "0"},
            )
            problem = asked.stderr.strip().splitlines()[-1:] or [f"no tag {tag}"] if asked.returncode else []
        except (OSError, subprocess.TimeoutExpired) as error:
            problem = [str(error)]
        if problem:
            raise EnvironmentFailure(
                f"{self.name} is on no package index, and its repository cannot be reached\n"
                f"  found:    {problem[0]}\n"
                f"  expected: {self.url}, or {self.variable}=PATH\n"
                f"  to do:    set {self.variable} to a checkout, an sdist or a wheel of it"
            )

    @contextlib.contextmanager
    def place(self) -> Iterator[str]:
        """What pip installs: a checkout as a copy, because building writes into it."""
        given = self.given()
        if given is None or not given.is_dir():
            yield str(given or self.url)
            return
        with tempfile.TemporaryDirectory(prefix=f"{self.name}-") as folder:
            yield str(shutil.copytree(given, Path(folder) / self.name, ignore=shutil.ignore_patterns(*NOT_SOURCE)))


def _content(path: Path) -> str:
    """A hash of a file, or of a folder's files without what building and version control leave there."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        parts = file.relative_to(path).parts if path.is_dir() else ()
        if file.is_file() and not any(fnmatch.fnmatch(part, pattern) for part in parts for pattern in NOT_SOURCE):
            digest.update(os.fsencode("/".join(parts)) + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return "sha256:" + digest.hexdigest()
