"""L010: files stay small enough to be read."""

from __future__ import annotations

from collections.abc import Iterator

from tools.lint.rule import Finding, Rule
from tools.lint.tree import Tree

MOST_LINES = 400


def check(tree: Tree) -> Iterator[Finding]:
    for file in tree.python():
        lines = len(file.read_bytes().splitlines())
        if lines > MOST_LINES:
            yield Finding(
                file, MOST_LINES + 1, f"has {lines} lines, more than {MOST_LINES}", "give its second job a module"
            )


RULE = Rule(
    "L010",
    f"A file of Python has at most {MOST_LINES} lines",
    "A module has one job and is read in one sitting. One that has grown past this has taken on a second job.",
    "```text\ncommon/everything.py (1,204 lines)\n```",
    "```text\ncommon/plan.py, common/run/runner.py, common/run/state.py\n```",
    check,
)
