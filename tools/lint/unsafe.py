"""L009: weights and data are untrusted, so nothing that is read may run."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tools.lint.rule import Finding, Rule
from tools.lint.tree import Tree

SAFE_LOADERS = {"yaml.SafeLoader", "yaml.CSafeLoader"}
# Calls that run what they read, and what to call in place of them
NEVER = {
    **{
        f"{module}.{name}": "safetensors, json or Arrow"
        for module in ("pickle", "dill", "marshal", "joblib", "cloudpickle")
        for name in ("load", "loads", "Unpickler")
    },
    "shelve.open": "json",
    "pandas.read_pickle": "Parquet",
    "yaml.unsafe_load": "yaml.safe_load",
    "yaml.unsafe_load_all": "yaml.safe_load_all",
    "yaml.full_load": "yaml.safe_load",
    "yaml.full_load_all": "yaml.safe_load_all",
    "os.system": "subprocess.run with a list of words",
    "os.popen": "subprocess.run with a list of words",
    "subprocess.getoutput": "subprocess.run with a list of words",
    "subprocess.getstatusoutput": "subprocess.run with a list of words",
    "eval": "ast.literal_eval or a parser",
    "exec": "an import",
}
# Keyword arguments that may only be False
FALSE_ONLY = {
    "trust_remote_code": "weights and data bring no code",
    "shell": "pass a list of words: a value is never parsed by a shell",
    "allow_pickle": "safetensors, json or Arrow",
}
# Functions that are safe only with this keyword argument set to True
TRUE_NEEDED = {"torch.load": "weights_only"}


def check(tree: Tree) -> Iterator[Finding]:
    for file in tree.python():
        module = tree.module(file)
        names = imported_names(module)
        loaders = SAFE_LOADERS | {
            node.name for node in ast.walk(module) if isinstance(node, ast.ClassDef) and _derives(node, names)
        }
        for node in ast.walk(module):
            if isinstance(node, ast.Call):
                for problem, hint in _call(node, names, loaders):
                    yield Finding(file, node.lineno, problem, hint)


def _call(node: ast.Call, names: dict[str, str], loaders: set[str]) -> Iterator[tuple[str, str]]:
    function = full_name(node.func, names)
    keywords = {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
    if function in NEVER:
        yield f"calls {function}", f"use {NEVER[function]}"
    for argument, hint in FALSE_ONLY.items():
        if argument in keywords and not _is(keywords[argument], False):
            yield f"passes {argument}", hint
    for name, argument in TRUE_NEEDED.items():
        if function == name and not _is(keywords.get(argument), True):
            yield f"calls {name} without {argument}=True", "a pickle is a program"
    if function in ("yaml.load", "yaml.load_all"):
        loader = keywords.get("Loader") or (node.args[1] if len(node.args) > 1 else None)
        if loader is None or full_name(loader, names) not in loaders:
            yield f"calls {function} with a loader that is not derived from SafeLoader", "use yaml.safe_load"


def imported_names(module: ast.Module) -> dict[str, str]:
    """What each imported name stands for: {"np": "numpy", "load": "torch.load"}."""
    names = {}
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def full_name(node: ast.AST, names: dict[str, str]) -> str | None:
    """The dotted name of an expression, imports resolved; None for what is no name."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        base = full_name(node.value, names)
        return f"{base}.{node.attr}" if base else None
    return None


def _derives(node: ast.ClassDef, names: dict[str, str]) -> bool:
    return any(full_name(base, names) in SAFE_LOADERS for base in node.bases)


def _is(node: ast.AST | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


RULE = Rule(
    "L009",
    "Nothing that is read may run",
    "Weights and data come from strangers. A pickle is a program, a YAML tag can call one, trust_remote_code is one, "
    "and a shell finds one in a file's name. Checkpoints are read with weights_only or without unpickling at all, YAML "
    "by a loader derived from SafeLoader, and commands are lists of words.",
    '```python\nstate = torch.load(path)\nsubprocess.run(f"tar xf {path}", shell=True)\n```',
    '```python\nstate = torch.load(path, weights_only=True)\nsubprocess.run(["tar", "xf", str(path)], check=True)\n```',
    check,
)
