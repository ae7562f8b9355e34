"""L003: no decision in common depends on the name of a vendor or device."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tools.lint.rule import Finding, Rule
from tools.lint.tree import Tree

# Known to frameworks, whether or not a platform of ours declares them
OTHER_DEVICES = {"amd", "gpu", "hip", "hpu", "intel", "mlu", "mps", "musa", "npu", "rocm", "xpu"}
NOT_NAMES = {"any"}  # the vendor of the platform that every machine is


def check(tree: Tree) -> Iterator[Finding]:
    names = vendor_names(tree)
    for file in tree.python("common"):
        seen = set()
        for constant in compared(tree.module(file)):
            if words(str(constant.value)) & names and constant not in seen:
                seen.add(constant)
                hint = (
                    "state what differs in common/platforms/*.yaml and ask for that: a capability, detect, backend, ..."
                )
                yield Finding(file, constant.lineno, f"a condition names {constant.value!r}", hint)


def vendor_names(tree: Tree) -> set[str]:
    """The words that name hardware: vendors, devices, backends and the first word of each platform's id."""
    names = set(OTHER_DEVICES)
    for identifier, (platform, _) in tree.platforms.items():
        names |= words(platform.vendor) | {identifier.split("_")[0]}
        for framework in platform.frameworks.values():
            names |= words(framework.device) | words(framework.backend)
    return names - NOT_NAMES


def words(text: str) -> set[str]:
    return set(re.findall(r"[a-z0-9]+", text.casefold()))


def compared(module: ast.Module) -> Iterator[ast.Constant]:
    """The string constants in conditions, in comparisons anywhere and in the patterns of match."""
    for node in ast.walk(module):
        if isinstance(node, ast.If | ast.IfExp | ast.While):
            yield from _strings(node.test)
        elif isinstance(node, ast.comprehension):
            for condition in node.ifs:
                yield from _strings(condition)
        elif isinstance(node, ast.Compare):
            yield from _strings(node)
        elif isinstance(node, ast.match_case):
            yield from _strings(node.pattern)


def _strings(node: ast.AST) -> Iterator[ast.Constant]:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
            yield inner


RULE = Rule(
    "L003",
    "No condition in common names a vendor or a device",
    "A new platform is one YAML file, written by a vendor who reads no Python of ours. A branch on a name is a place "
    "that the new platform's author would have to find; the second device of the same kind falls through it in "
    "silence. The names are taken from common/platforms/*.yaml.",
    '```python\nif device == "npu":\n    backend = "hccl"\n```',
    "```python\nbackend = platform.read(identifier).frameworks[framework].backend\n```",
    check,
)
