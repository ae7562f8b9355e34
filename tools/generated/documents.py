"""Every file that is generated, whole or in part."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from common.files import write_text
from tools.generated import keys, lint_page, markers, tables
from tools.lint.tree import Tree

Parts = dict[str, Callable[[], str]]


@dataclass(frozen=True)
class Document:
    file: Path
    text: Callable[[], str]
    """What the file must hold. Raises UserError for a mistake in its markers."""
    schema: bool = False

    def current(self) -> str:
        return self.file.read_text(encoding="utf-8") if self.file.is_file() else ""


def documents(tree: Tree) -> Iterator[Document]:
    """The JSON Schemas, and the Markdown files that have generated parts."""
    schemas = tree.root / "docs" / "schema"
    yield Document(schemas / "recipe.json", keys.recipe_schema, schema=True)
    yield Document(schemas / "platform.json", keys.platform_schema, schema=True)
    for file in tree.files:
        if file.suffix != ".md" or "tests" in file.relative_to(tree.root).parts:
            continue
        current = file.read_text(encoding="utf-8")
        if markers.has_parts(current):
            yield Document(file, partial(markers.replace, current, parts(tree, file), file))


def write(tree: Tree, wanted: Callable[[Document], bool]) -> list[Path]:
    """Write the wanted documents that are out of date, each in one step. Returns their files."""
    written = []
    for document in documents(tree):
        if wanted(document) and document.current() != (text := document.text()):
            write_text(document.file, text)
            written.append(document.file)
    return written


def parts(tree: Tree, file: Path) -> Parts:
    """What can be generated in `file`: in a recipe's folder its own tables, elsewhere the project's."""
    if file.parent in tree.recipes:
        recipe = tree.recipes[file.parent][0]
        platforms = {name: platform for name, (platform, _) in tree.platforms.items()}
        return {
            "commands": partial(tables.commands, file.parent, recipe),
            "presets": partial(tables.presets, recipe),
            "platforms": partial(tables.recipe_platforms, recipe, platforms),
            "versions": partial(tables.versions, recipe),
            "defects": partial(tables.defects, recipe),
            "results": partial(tables.results, recipe),
        }
    return {
        "recipes": lambda: tables.recipes((folder, recipe) for folder, (recipe, _) in tree.recipes.items()),
        "platforms": lambda: tables.platforms((name, platform) for name, (platform, _) in tree.platforms.items()),
        "corrected": lambda: tables.corrected((folder, recipe) for folder, (recipe, _) in tree.recipes.items()),
        "golden": lambda: tables.golden_curves(tree.recipes),
        "lints": lints,
        "recipe-keys": keys.recipe_keys,
        "platform-keys": keys.platform_keys,
    }


def lints() -> str:
    from tools.lint.rules import RULES  # one of the rules checks what is generated here

    return lint_page.page(RULES)
