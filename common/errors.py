"""Errors that reach a person, and the exit status each one ends in.

Standard library only: recipes' environments import this too.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from pathlib import Path

EXIT_FAILED = 1  # a failure while running
EXIT_USAGE = 2  # a wrong call or wrong input
EXIT_INTERRUPTED = 130  # Ctrl-C, as shells report it


class UserError(Exception):
    """A wrong call or wrong input: what the person who typed the command can put right.

    The message names the file and the line or record, what was found, what was expected and what
    to do. It ends the program with status 2 and without a traceback.
    """

    status = EXIT_USAGE

    def __init__(
        self,
        problem: str,
        *,
        file: str | os.PathLike[str] | None = None,
        line: int | None = None,
        found: object = None,
        expected: object = None,
        hint: str | None = None,
    ) -> None:
        self.problem = problem
        self.file = Path(file) if file is not None else None
        self.line = line
        self.found = found
        self.expected = expected
        self.hint = hint
        super().__init__(self.render())

    def render(self) -> str:
        """The message as it is printed, without the leading "error: "."""
        place = "" if self.file is None else f"{self.file}:{self.line}: " if self.line else f"{self.file}: "
        lines = [place + self.problem]
        if self.found is not None:
            lines.append(f"  found:    {self.found}")
        if self.expected is not None:
            lines.append(f"  expected: {self.expected}")
        if self.hint is not None:
            lines.append(f"  to do:    {self.hint}")
        return "\n".join(lines)


class RunError(UserError):
    """A failure while running, of nobody's input: ends the program with status 1."""

    status = EXIT_FAILED


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """A sentence that names the nearest known word, or None when nothing is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else None
