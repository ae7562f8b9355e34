"""L004: each fact stands once, in recipe.yaml or in configs/, and every reference resolves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import plan
from common.errors import UserError
from common.recipe import Preset, Recipe
from common.references import REFERENCE
from common.request import Request
from common.settings import SECTIONS, stated
from common.yaml_file import Document, Location, load
from tools.lint.rule import Finding, Rule
from tools.lint.tree import Tree


def check(tree: Tree) -> Iterator[Finding]:
    for folder, (recipe, document) in tree.recipes.items():
        yield from _literals(folder, recipe)
        configs = [recipe.config, *(entry.config for entry in recipe.platforms.values() if entry.config)]
        if all((folder / name).is_file() for name in configs):  # L012 reports what is absent
            yield from _plans(tree, folder, recipe, document)


def _literals(folder: Path, recipe: Recipe) -> Iterator[Finding]:
    """Keys of the framework's configuration that carry a setting's name and a value of their own."""
    keys = {f"{section}.{key}": key for section, values in _stated(recipe).items() for key in values}
    for file in sorted((folder / "configs").glob("*.yaml")):
        try:
            document = load(file)
        except UserError as error:
            yield Finding(file, error.line, error.problem)
            continue
        for location, value in leaves(document.value):
            same = [name for name, key in keys.items() if key == location[-1]]
            if same and not (isinstance(value, str) and REFERENCE.search(value)):
                yield Finding(
                    file,
                    document.line(location),
                    f"{'.'.join(map(str, location))} is {value!r} here, and recipe.yaml states {same[0]}",
                    f"refer to ${{{same[0]}}}, or take {same[0]} out of recipe.yaml",
                )


def _stated(recipe: Recipe) -> dict[str, dict[str, Any]]:
    everything = stated(recipe)
    return {section: everything[section] for section in SECTIONS if section in everything}


def leaves(value: Any, at: Location = ()) -> Iterator[tuple[Location, Any]]:
    """Every value that is no mapping, with where it stands."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*at, key))
    else:
        yield at, value


def _plans(tree: Tree, folder: Path, recipe: Recipe, document: Document) -> Iterator[Finding]:
    """Every preset is planned on each of its platforms: what cannot be resolved is found."""
    reported = set()
    for name, preset in recipe.presets.items():
        for platform_id in preset.platforms:
            if platform_id not in tree.platforms:
                continue  # L012 reports it
            try:
                plan.make(request(folder, recipe, name, preset, platform_id))
            except UserError as error:
                if error.problem not in reported:
                    reported.add(error.problem)
                    file = error.file or document.file
                    line = error.line or (document.line(("presets", name)) if file == document.file else None)
                    yield Finding(file, line, f"preset {name} on {platform_id}: {error.problem}", error.hint)


def request(folder: Path, recipe: Recipe, name: str, preset: Preset, platform_id: str) -> Request:
    """A request for a preset that stands in for what the person would give."""
    model = None if preset.model.path or recipe.model.path else "organization/model"
    data = None if preset.data.train or recipe.data.train else "organization/data"
    return Request(recipe=folder, preset=name, platform=platform_id, model=model, data=data)


RULE = Rule(
    "L004",
    "Each setting stands once, in recipe.yaml or in configs/, and every reference resolves",
    "A learning rate in two files is two learning rates: one of them is used and nobody knows which. What plan "
    "and report need stands in recipe.yaml; configs/ refers to it as `${section.key}`. A reference that names nothing, "
    "and a setting that nothing refers to, are found as well: every preset is planned on every one of its platforms.",
    "```yaml\n# recipe.yaml\nlora: {dropout: 0.05}\n# configs/sft.yaml\nlora: {dropout: 0.1}\n```",
    '```yaml\n# recipe.yaml\nlora: {dropout: 0.05}\n# configs/sft.yaml\nlora: {dropout: "${lora.dropout}"}\n```',
    check,
)
