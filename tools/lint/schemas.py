"""L001 and L013: recipe.yaml and platform.yaml follow their schema, and patterns have their groups."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pydantic

from common.errors import UserError
from common.platform import Platform
from common.recipe import Recipe
from common.schema import explain
from common.yaml_file import Document, Location, load
from tools.lint.rule import Finding, Rule
from tools.lint.tree import Tree


def check(tree: Tree) -> Iterator[Finding]:
    for folder in tree.recipe_folders:
        yield from _file(folder / "recipe.yaml", Recipe)
    for file in tree.platform_files:
        yield from _file(file, Platform)


def check_patterns(tree: Tree) -> Iterator[Finding]:
    for platform, document in tree.platforms.values():
        patterns = [(("checks", index, "pattern"), check.pattern, 1) for index, check in enumerate(platform.checks)]
        if platform.detect:
            yield from _pattern(document, ("detect", "pattern"), platform.detect.pattern, "mib")
        for location, pattern, group in patterns:
            yield from _pattern(document, location, pattern, group)


def _pattern(document: Document, location: Location, pattern: str, group: int | str) -> Iterator[Finding]:
    name = ".".join(map(str, location))
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        yield Finding(document.file, document.line(location), f"{name} is no regular expression: {error}")
        return
    if group not in compiled.groupindex and group not in range(1, compiled.groups + 1):
        yield Finding(document.file, document.line(location), f"{name} has no group {group}")


def _file(file: Path, model: type[pydantic.BaseModel]) -> Iterator[Finding]:
    try:
        document = load(file)
        model.model_validate(document.value)
    except UserError as error:
        yield _finding(error, file)
    except pydantic.ValidationError as error:
        for each in error.errors():
            yield _finding(explain(model, each, document), file)


def _finding(error: UserError, file: Path) -> Finding:
    found = "" if error.found is None else f" (found {error.found})"
    expected = None if error.expected is None else f"expected {error.expected}"
    return Finding(file, error.line, error.problem + found, error.hint or expected)


RULE = Rule(
    "L001",
    "recipe.yaml and platform.yaml follow their schema",
    "A key that nobody reads is a setting that nobody applies. The recipe this project began with had "
    "`max_seq_len` in its YAML where the program read `max_seq_length`: it trained at 512 tokens instead of 3072 "
    "and said nothing. Unknown keys, missing keys, keys given twice and values of another type are errors that "
    "name the line and the nearest right key.",
    "```yaml\ndata:\n  max_len: 3072\n```",
    "```yaml\ndata:\n  max_length: 3072\n```",
    check,
)
PATTERNS = Rule(
    "L013",
    "Regular expressions in platform.yaml compile and have their groups",
    "A pattern that finds nothing makes a machine look as if it had no devices, or a driver of no version. "
    "`detect.pattern` has a group `mib`, the device's memory; the first group of `checks[].pattern` is the value.",
    "```yaml\ndetect:\n  pattern: '\\d+'\n```",
    "```yaml\ndetect:\n  pattern: '(?P<mib>\\d+)'\n```",
    check_patterns,
)
