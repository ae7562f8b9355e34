"""L005, L006, L011, L012: what a recipe names is there, and recipes start alike."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from common.environment import parse_version
from common.errors import did_you_mean
from common.recipe import Recipe
from common.yaml_file import Document, Location
from tools.lint.rule import Finding, Rule
from tools.lint.tree import Tree

TIERS = ("declared", "smoked", "verified")


def check_defects(tree: Tree) -> Iterator[Finding]:
    for folder, (recipe, document) in tree.recipes.items():
        for index, defect in enumerate(recipe.reproduces.corrected):
            line = document.line(("reproduces", "corrected", index, "test"))
            file, _, name = defect.test.partition("::")
            if not (folder / file).is_file():
                yield Finding(document.file, line, f"the test {defect.test}: there is no file {file}")
            elif not _has_test(tree.module(folder / file), name):
                yield Finding(document.file, line, f"the test {defect.test}: {file} has no {name or 'test named'}")


def _has_test(module: ast.Module, name: str) -> bool:
    """Whether `name` (function, or Class::function, with or without [parameters]) is defined."""
    body: list[ast.stmt] = module.body
    for part in re.sub(r"\[.*", "", name).split("::"):
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        found = [node for node in body if isinstance(node, kinds) and node.name == part]
        if not found:
            return False
        body = found[0].body
    return True


def check_run_scripts(tree: Tree) -> Iterator[Finding]:
    scripts = {folder / "run.sh": folder for folder in tree.recipe_folders}
    texts = {file: file.read_bytes() for file in scripts if file.is_file()}
    for file in scripts:
        if file not in texts:
            yield Finding(file, None, "is missing", "copy another recipe's: they are all the same")
    if not texts:
        return
    usual = Counter(texts.values()).most_common(1)[0][0]
    model = next(file for file, text in texts.items() if text == usual)
    for file, text in texts.items():
        if text != usual:
            hint = f"copy {model.relative_to(tree.root)}; what a recipe does stands in its recipe.yaml"
            yield Finding(file, _first_difference(text, usual), "differs from the other recipes' run.sh", hint)


def _first_difference(text: bytes, other: bytes) -> int:
    lines, others = text.splitlines(), other.splitlines()
    same = (index for index, pair in enumerate(zip(lines, others, strict=False), 1) if pair[0] != pair[1])
    return next(same, min(len(lines), len(others) + 1))


def check_tiers(tree: Tree) -> Iterator[Finding]:
    proven: dict[str, int] = {}
    for recipe, document in tree.recipes.values():
        for identifier, entry in recipe.platforms.items():
            if entry.tier == "declared":
                continue
            line = document.line(("platforms", identifier))
            if entry.log is None:
                yield Finding(document.file, line, f"platforms.{identifier} is {entry.tier} and names no log")
            elif not (tree.root / entry.log).is_file():
                yield Finding(document.file, line, f"platforms.{identifier}.log: there is no file {entry.log}")
            else:
                proven[identifier] = max(proven.get(identifier, 0), TIERS.index(entry.tier))
    for identifier, (platform, document) in tree.platforms.items():
        if TIERS.index(platform.tier) > proven.get(identifier, 0):
            line = document.line(("tier",))
            hint = "a recipe that ran there attaches its log: platforms.ID.tier and log in its recipe.yaml"
            yield Finding(document.file, line, f"tier is {platform.tier}, and no recipe's log shows it", hint)


def check_names(tree: Tree) -> Iterator[Finding]:
    for folder, (recipe, document) in tree.recipes.items():
        for location, problem, hint in _absent(tree, folder, recipe):
            yield Finding(document.file, document.line(location), problem, hint)
        yield from _scripts(folder, recipe, document)


def _absent(tree: Tree, folder: Path, recipe: Recipe) -> Iterator[tuple[Location, str, str | None]]:
    if not (folder / recipe.config).is_file():
        yield ("config",), f"config: there is no file {recipe.config}", None
    versions = [parse_version(text) for text in (recipe.python.min, recipe.python.prefer, recipe.python.max)]
    if versions != sorted(versions):
        yield ("python",), "python: min, prefer and max are not in this order", None
    for identifier, entry in recipe.platforms.items():
        at: Location = ("platforms", identifier)
        if not (folder / entry.requirements).is_file():
            yield at, f"platforms.{identifier}.requirements: there is no file {entry.requirements}", None
        if entry.config and not (folder / entry.config).is_file():
            yield at, f"platforms.{identifier}.config: there is no file {entry.config}", None
        for patch in entry.patches:
            if not (tree.root / "patches" / f"{patch.replace('.', '/')}.py").is_file():
                yield at, f"platforms.{identifier}.patches: there is no patch {patch}", None
        if identifier not in {file.stem for file in tree.platform_files}:
            names = [file.stem for file in tree.platform_files]
            yield at, f"there is no platform {identifier}", did_you_mean(identifier, names)
        elif identifier in tree.platforms:
            framework = tree.platforms[identifier][0].frameworks.get(recipe.framework)
            if framework is None:
                yield at, f"platform {identifier} says nothing of the framework {recipe.framework}", None
            elif recipe.launcher not in framework.launchers:
                yield at, f"platform {identifier} has no launcher {recipe.launcher}", None
    for name, preset in recipe.presets.items():
        for identifier in preset.platforms:
            known = tree.platforms[identifier][0].capabilities if identifier in tree.platforms else preset.requires
            for capability in set(preset.requires) - set(known):
                hint = did_you_mean(capability, known)
                yield ("presets", name), f"preset {name} needs {capability}, which {identifier} has not", hint


def _scripts(folder: Path, recipe: Recipe, document: Document) -> Iterator[Finding]:
    for name, stage in recipe.stages.items():
        for command in stage.commands:
            for word in command.run:
                script = word.removeprefix("${recipe}/") if isinstance(word, str) else ""
                if script != word and script and not (folder / script).exists():
                    yield Finding(
                        document.file, document.line(("stages", name)), f"stage {name}: there is no file {script}"
                    )


DEFECTS = Rule(
    "L005",
    "Every corrected defect names a test that exists",
    "A defect that is only described comes back. recipe.yaml says FILE::NAME of the test that fails when the defect is "
    "put back; the README's table is made from it.",
    "```yaml\n- defect: The warm-up had no effect.\n  correction: constant_with_warmup\n"
    "  test: tests/test_run.py::not_written_yet\n```",
    "```yaml\n- defect: The warm-up had no effect.\n  correction: constant_with_warmup\n"
    "  test: tests/test_run.py::test_learning_rate_warms_up_and_stays\n```",
    check_defects,
)
RUN_SCRIPTS = Rule(
    "L006",
    "run.sh is the same in every recipe",
    "One command works everywhere, and a correction to it reaches every recipe. What a recipe does differently stands "
    "in its recipe.yaml.",
    '```bash\n# recipes/mine/run.sh\nexport MY_OPTION=1\nexec "$light_python" -m common.run "$recipe" "$@"\n```',
    '```bash\n# recipes/mine/run.sh, copied\nexec "$light_python" -m common.run "$recipe" "$@"\n```',
    check_run_scripts,
)
TIERS_RULE = Rule(
    "L011",
    "A platform above the tier `declared` has its log",
    "`smoked` and `verified` say that something ran. The log of that run is in the repository, named by the recipe "
    "that ran; a platform's own tier is at most what some recipe's log shows.",
    "```yaml\nplatforms:\n  nvidia_80gb: {tier: verified, requirements: requirements/nvidia.txt}\n```",
    "```yaml\nplatforms:\n  nvidia_80gb: {tier: declared, requirements: requirements/nvidia.txt}\n```",
    check_tiers,
)
NAMES = Rule(
    "L012",
    "What recipe.yaml names is there",
    "Platforms, frameworks, launchers, capabilities, requirements, patches, configurations and scripts are looked up "
    "when a run begins, and only those of the chosen platform. This looks up all of them, before somebody with the "
    "hardware does.",
    "```yaml\nplatforms:\n  nvidia_24g: {tier: declared, requirements: requirements/nvidia.txt}\n```",
    "```yaml\nplatforms:\n  nvidia_24gb: {tier: declared, requirements: requirements/nvidia.txt}\n```",
    check_names,
)
