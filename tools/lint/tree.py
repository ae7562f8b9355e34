"""The project as the rules see it: its files, its Python, its recipes and platforms."""

from __future__ import annotations

import ast
import os
from functools import cached_property
from pathlib import Path

from common import platform, recipe
from common.errors import UserError
from common.platform import Platform
from common.recipe import Recipe
from common.schema import validate
from common.yaml_file import Document, load

# What tools write, and what is not ours: no rule looks there. Hidden folders are passed over as well.
NOT_SOURCE = {"__pycache__", "_build", "runs", "build", "dist", "node_modules"}


class Tree:
    """The project at `root`, read once."""

    def __init__(self, root: Path = recipe.ROOT) -> None:
        self.root = root
        self._modules: dict[Path, ast.Module] = {}

    @cached_property
    def files(self) -> list[Path]:
        """Every file of the project, sorted."""
        found = []
        for folder, names, files in os.walk(self.root):
            names[:] = [name for name in names if name not in NOT_SOURCE and not name.startswith(".")]
            found += [Path(folder, name) for name in files]
        return sorted(found)

    def python(self, *folders: str) -> list[Path]:
        """The Python files of the named top-level folders; of the whole project where none is named."""
        return [
            file
            for file in self.files
            if file.suffix == ".py" and (not folders or file.relative_to(self.root).parts[0] in folders)
        ]

    def module(self, file: Path) -> ast.Module:
        """The syntax tree of a Python file. Raises UserError when it is not Python."""
        if file not in self._modules:
            try:
                self._modules[file] = ast.parse(file.read_bytes(), filename=str(file))
            except SyntaxError as error:
                raise UserError(f"is not Python: {error.msg}", file=file, line=error.lineno) from None
            except ValueError as error:  # NUL bytes, on Python 3.11
                raise UserError(f"is not Python: {error}", file=file) from None
        return self._modules[file]

    @property
    def recipe_folders(self) -> list[Path]:
        return sorted(file.parent for file in (self.root / "recipes").glob("*/recipe.yaml"))

    @property
    def platform_files(self) -> list[Path]:
        return sorted((self.root / platform.FOLDER.relative_to(recipe.ROOT)).glob("*.yaml"))

    @cached_property
    def recipes(self) -> dict[Path, tuple[Recipe, Document]]:
        """The recipes that are valid, by folder. Rule L001 reports the others."""
        found = {}
        for folder in self.recipe_folders:
            try:
                document = load(folder / "recipe.yaml")
                found[folder] = (validate(Recipe, document), document)
            except UserError:
                continue
        return found

    @cached_property
    def platforms(self) -> dict[str, tuple[Platform, Document]]:
        """The platforms that are valid, by id. Rule L001 reports the others."""
        found = {}
        for file in self.platform_files:
            try:
                document = load(file)
                found[file.stem] = (validate(Platform, document), document)
            except UserError:
                continue
        return found

    def tests(self) -> list[Path]:
        """The files of tests: test_*.py under tests/ and under the recipes' tests/."""
        return [file for file in self.python("tests", "recipes") if file.name.startswith("test_")]
