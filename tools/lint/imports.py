"""L002: who may import whom."""

from __future__ import annotations

import ast
from collections import deque
from collections.abc import Iterator

from tools.lint.rule import Finding, Rule
from tools.lint.tree import Tree

FRAMEWORKS = {
    "accelerate", "bitsandbytes", "colossalai", "deepspeed", "flash_attn", "mindformers", "mindspore", "nnscaler",
    "peft", "torch", "torch_npu", "torchvision", "transformers", "trl",
}  # fmt: skip


def check(tree: Tree) -> Iterator[Finding]:
    for file in tree.python("recipes", "common", "patches", "tools"):
        for name, line in imported(tree.module(file)):
            if name.split(".")[0] == "recipes":
                hint = "a recipe is copied as a folder: move what is shared to common/"
                yield Finding(file, line, f"imports {name}: a recipe is imported by nobody", hint)
    shared = tree.root / "common" / "frameworks"
    for file in tree.python("common"):
        module = tree.module(file)
        for name, line in imported(module):
            if name.split(".")[0] == "tools":
                yield Finding(file, line, f"imports {name}: tools stand on common, not the reverse")
        if shared in file.parents:
            continue
        for name, line in imported(module, top_level=True):
            if name.split(".")[0] in FRAMEWORKS:
                hint = "import it inside the function that needs it; other recipes' environments do not have it"
                yield Finding(file, line, f"imports the framework {name} at module level", hint)
            if f"{name}.".startswith("common.frameworks."):
                hint = "what one framework's recipes share is for those recipes"
                yield Finding(file, line, f"imports {name} at module level", hint)


def imported(module: ast.Module, top_level: bool = False) -> Iterator[tuple[str, int]]:
    """The modules that are imported, with the line; `top_level`: only what importing the module runs."""
    pending: deque[ast.AST] = deque(module.body)
    while pending:
        node = pending.popleft()
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module, node.lineno
        elif isinstance(node, ast.Call) and _named_import(node):
            yield str(node.args[0].value), node.lineno  # type: ignore[attr-defined]
        if top_level and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if top_level and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            pending += node.orelse
            continue
        pending += ast.iter_child_nodes(node)


def _named_import(call: ast.Call) -> bool:
    """import_module("name") and __import__("name")."""
    function = call.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", None)
    first = call.args[0] if call.args else None
    return name in ("import_module", "__import__") and isinstance(first, ast.Constant) and isinstance(first.value, str)


RULE = Rule(
    "L002",
    "No recipe is imported; common imports no framework at module level",
    "A recipe's folder is copied and must work, so nothing may lean on another recipe. Every framework pins its own "
    "versions, and a MindSpore machine has no torch at all: what a recipe imports from common must not bring a "
    "framework with it. What several recipes of one framework share is the exception: it stands in "
    "common/frameworks/FRAMEWORK/, which nothing else in common imports at module level. "
    "What tools need stands in common, never the reverse.",
    "```python\n# common/evaluation/perplexity.py\nimport torch\n```",
    "```python\n# common/evaluation/perplexity.py\ndef held_out_loss(...):\n    import torch\n```",
    check,
)
