"""Runs the rules and says what they found."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from common.errors import UserError
from tools.lint.rule import Finding, Rule
from tools.lint.rules import RULES
from tools.lint.tree import Tree


@dataclass(frozen=True)
class Found:
    """A finding of a rule, its file as the person would type it."""

    rule: str
    file: str
    line: int | None
    problem: str
    hint: str | None

    def lines(self) -> Iterator[str]:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        yield f"{place}: {self.rule} {self.problem}"
        if self.hint:
            yield f"    {self.hint}"


def chosen(wanted: Iterable[str]) -> list[Rule]:
    """The rules named as L003, l3 or 3; all where none is named. Raises UserError for an unknown one."""
    known = {rule.id: rule for rule in RULES}
    selected = []
    for name in wanted:
        number = name.upper().removeprefix("L")
        identifier = f"L{int(number):03}" if number.isdecimal() else name.upper()
        if identifier not in known:
            raise UserError("--rule names no rule", found=name, expected=f"{RULES[0].id} to {RULES[-1].id}")
        selected.append(known[identifier])
    return selected or list(RULES)


def within(tree: Tree, paths: Iterable[Path]) -> tuple[Path, ...]:
    """The paths, absolute. Raises UserError for one that is not there or not of this project."""
    absolute = []
    for path in paths:
        if not path.exists():
            raise UserError("there is no such file or folder", file=path)
        absolute.append(path.resolve())
        if not absolute[-1].is_relative_to(tree.root):
            raise UserError("is outside of the project", file=path, expected=f"a path under {tree.root}")
    return tuple(absolute)


def find(tree: Tree, rules: Iterable[Rule], paths: tuple[Path, ...] = ()) -> list[Found]:
    """What the rules find, under `paths` where any are given; by file, line and rule."""
    found = [
        (finding, rule.id)
        for rule in rules
        for finding in rule.check(tree)
        if not paths or any(finding.file.is_relative_to(path) for path in paths)
        if not _allowed(finding, rule.id)
    ]
    found.sort(key=lambda item: (item[0].file, item[0].line or 0, item[1]))
    return [_shown(tree, finding, identifier) for finding, identifier in found]


def _allowed(finding: Finding, identifier: str) -> bool:
    """Whether the line in a Python file says `# allow L003: and why`. Without a reason it is not allowed."""
    if finding.file.suffix != ".py" or finding.line is None:
        return False
    lines = finding.file.read_text(encoding="utf-8").splitlines()
    text = lines[finding.line - 1] if finding.line <= len(lines) else ""
    return re.search(rf"#.*\ballow {identifier}: \S", text) is not None


def _shown(tree: Tree, finding: Finding, identifier: str) -> Found:
    inside = finding.file.is_relative_to(tree.root)
    file = finding.file.relative_to(tree.root) if inside else finding.file
    return Found(identifier, str(file), finding.line, finding.problem, finding.hint)
