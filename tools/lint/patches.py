"""L008: a patch says what it is for, and a test holds it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from tools.lint.rule import Finding, Rule
from tools.lint.tree import Tree

STATED = ("VERSIONS", "REASON", "UPSTREAM")


def check(tree: Tree) -> Iterator[Finding]:
    tests = [file.read_text(encoding="utf-8") for file in tree.tests()]
    for file in tree.python("patches"):
        relative = file.relative_to(tree.root / "patches")
        if file.name == "__init__.py":
            continue
        if len(relative.parts) != 2:
            yield Finding(file, None, "is not patches/FRAMEWORK/NAME.py")
            continue
        yield from _module(file, tree.module(file))
        framework, name = relative.parts[0], relative.stem
        spelled = (f"{framework}.{name}", f"from patches.{framework} import {name}")
        if not any(spelling in text for spelling in spelled for text in tests):
            yield Finding(file, None, f"no test names {framework}.{name}", "a test shows what goes wrong without it")


def _module(file: Path, module: ast.Module) -> Iterator[Finding]:
    constants = dict(_constants(module))
    for name in STATED:
        if not constants.get(name, "").strip():
            yield Finding(file, None, f"states no {name}")
    versions = constants.get("VERSIONS", "")
    try:
        unbounded = versions and not any(each.operator in ("<", "<=", "==", "~=") for each in SpecifierSet(versions))
        if unbounded:
            yield Finding(
                file, None, f"VERSIONS has no upper end: {versions}", "code that is not written yet is not known"
            )
    except InvalidSpecifier:
        yield Finding(file, None, f"VERSIONS is no version range: {versions}", "for example >=1.15,<1.16")
    functions = [node for node in module.body if isinstance(node, ast.FunctionDef) and node.name == "apply"]
    if not functions:
        yield Finding(file, None, "has no function apply()")
    elif functions[0].args.args:
        yield Finding(file, functions[0].lineno, "apply() takes no arguments")


def _constants(module: ast.Module) -> Iterator[tuple[str, str]]:
    for node in module.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    yield target.id, node.value.value


RULE = Rule(
    "L008",
    "A patch states VERSIONS, REASON, UPSTREAM and apply(), and a test names it",
    "A patch that meets other code than it was written for is worse than none: outside VERSIONS, which has an upper "
    "end, it is refused. REASON says what goes wrong without it, UPSTREAM where to look whether it is still needed, "
    "and the test shows it.",
    '```python\n"""Fixes FSDP."""\n\ndef apply():\n    ...\n```',
    '```python\nVERSIONS = ">=1.15,<1.16"\nREASON = "..."\n'
    'UPSTREAM = "accelerate/state.py, AcceleratorState.__init__"\n\n'
    "def apply() -> None:\n    ...\n```",
    check,
)
