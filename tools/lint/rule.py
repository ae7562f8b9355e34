"""What a rule is, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tools.lint.tree import Tree


@dataclass(frozen=True)
class Finding:
    """One place that breaks a rule."""

    file: Path
    """Absolute; the file need not exist where its absence is what was found."""
    line: int | None
    problem: str
    hint: str | None = None


@dataclass(frozen=True)
class Rule:
    id: str
    """L and three digits. A number is never given to another rule."""
    summary: str
    """What holds, in one line."""
    why: str
    bad: str
    """An example as fenced Markdown, like `good`."""
    good: str
    check: Callable[[Tree], Iterable[Finding]]
    fix: Callable[[Tree, tuple[Path, ...]], list[Path]] | None = None
    """Puts right what is found under the given paths and returns the files it wrote."""
