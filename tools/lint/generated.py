"""L007: what is generated from recipe.yaml, the schemas and the rules is up to date."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from common.errors import UserError
from tools.generated.documents import documents, write
from tools.lint.rule import Finding, Rule
from tools.lint.tree import Tree


def check(tree: Tree) -> Iterator[Finding]:
    for document in documents(tree):
        try:
            expected = document.text()
        except UserError as error:
            yield Finding(document.file, error.line, error.problem, error.hint)
            continue
        if (current := document.current()) != expected:
            line = _first_difference(current, expected)
            yield Finding(document.file, line, "a generated part is out of date", "python -m tools lint --fix")


def fix(tree: Tree, paths: tuple[Path, ...]) -> list[Path]:
    return write(tree, lambda document: not paths or any(document.file.is_relative_to(path) for path in paths))


def _first_difference(current: str, expected: str) -> int | None:
    for number, (line, other) in enumerate(zip(current.splitlines(), expected.splitlines(), strict=False), 1):
        if line != other:
            return number
    return len(current.splitlines()) or None


RULE = Rule(
    "L007",
    "Generated parts of README files, docs and schemas are up to date",
    "Tables and commands are made from recipe.yaml, this page from the rules, the JSON Schemas from the code. A table "
    "that somebody edited by hand, or forgot, says what is no longer true. `python -m tools lint --fix` rewrites them; "
    "so do `python -m tools readme` and `python -m tools schema`.",
    "```markdown\n<!-- generated: recipes -->\n| a table | edited by hand |\n<!-- end -->\n```",
    "```bash\npython -m tools lint --fix\n```",
    check,
    fix,
)
