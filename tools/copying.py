"""A recipe from another one: `tools new` copies it, `tools diff` shows what is different from its parent today."""

from __future__ import annotations

import difflib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from common import recipe
from common.errors import UserError
from common.files import whole_directory, write_text
from common.golden import FILE as GOLDEN
from common.run.provenance import commit
from tools.generated import documents, markers
from tools.lint.tree import Tree

NAME = re.compile(r"[a-z][a-z0-9_]*")
PARENT = re.compile(r"^parent: .*\n", re.MULTILINE)
NOT_COPIED = ("__pycache__", ".*", "*.pyc", "runs", "failed", GOLDEN)
"""What tools leave behind, and the parent's own comparison with the golden curve."""


def new(name: str, parent: str) -> list[Path]:
    """Copy the recipe `parent` to recipes/`name`; returns the files with generated parts that were rewritten.

    The copy has its own name in its texts and commands, states its parent and commit, and claims no
    platform beyond `declared`: nobody has run it yet. Raises UserError, and leaves nothing, when it cannot be.
    """
    source = recipe.find(parent)
    target = recipe.ROOT / "recipes" / name
    if not NAME.fullmatch(name):
        raise UserError("is no name of a recipe", found=name, expected="small letters, digits and _, a letter first")
    if target.exists():
        raise UserError("exists already", file=target, hint="choose another name, or remove it")
    with whole_directory(target) as partial:
        shutil.copytree(source, partial, ignore=shutil.ignore_patterns(*NOT_COPIED), symlinks=True, dirs_exist_ok=True)
        for file in sorted(partial.rglob("*")):
            if (text := _text(file)) is not None and (renamed := rename(text, source.name, name)) != text:
                _write(file, renamed)
        file = partial / "recipe.yaml"
        _write(file, _declared(file.read_text(encoding="utf-8"), f"{source.name} at {commit(source) or 'no commit'}"))
        recipe.read(partial)
    return documents.write(Tree(), lambda _: True)


def rename(text: str, old: str, new_name: str) -> str:
    """`text` with the recipe's name replaced where it stands as a word.

    A patch's name (accelerate.NAME), logs and benches under that name are not the recipe's own and stay.
    """
    return re.sub(rf"(?<![\w.-])(?<!bench/)(?<!logs/){re.escape(old)}(?![\w-])", new_name, text)


def _declared(text: str, parent: str) -> str:
    """recipe.yaml with its parent stated, and no tier that somebody else's log is the proof of."""
    text = PARENT.sub("", _unclaimed(text))
    return re.sub(r"^(?=reproduces:)", f"parent: {parent}\n", text, count=1, flags=re.MULTILINE)


def _unclaimed(text: str) -> str:
    """recipe.yaml with every platform declared, and no log."""
    text = re.sub(r"\btier: (?:smoked|verified)\b", "tier: declared", text)
    return re.sub(r"^ +log: .*\n|, *log: [^,}\n]*", "", text, flags=re.MULTILINE)


def diff(name: str) -> str:
    """Unified differences from the parent, as it is today, to the recipe; "" for an untouched copy.

    What `new` changes is no difference: the name, and the tiers that a copy may not claim. Nor are generated
    parts: they follow from the rest. Raises UserError for a recipe without a parent, or whose parent is gone.
    """
    folder = recipe.find(name)
    read, document = recipe.read(folder)
    if read.parent is None:
        raise UserError("has no parent: it was not made by `tools new`", file=document.file, hint="add `parent: NAME`")
    parent = recipe.find(read.parent.split()[0])
    return "".join(_differences(parent, folder))


def _differences(parent: Path, folder: Path) -> Iterator[str]:
    ours, theirs = _files(folder), _files(parent)
    for relative in sorted(ours | theirs):
        before, after = parent / relative, folder / relative
        old, new_text = (_text(file) if file.is_file() else "" for file in (before, after))
        if old is None or new_text is None:
            if not (before.is_file() and after.is_file() and before.read_bytes() == after.read_bytes()):
                yield f"Binary files {parent.name}/{relative} and {folder.name}/{relative} differ\n"
            continue
        old = rename(old, parent.name, folder.name)
        if relative == Path("recipe.yaml"):
            old, new_text = PARENT.sub("", _unclaimed(old)), PARENT.sub("", new_text)
        if relative.suffix == ".md":
            old = markers.take_over(old, new_text)
        a, b = (text.splitlines(keepends=True) for text in (old, new_text))
        a_name = f"{parent.name}/{relative}" if before.is_file() else os.devnull
        b_name = f"{folder.name}/{relative}" if after.is_file() else os.devnull
        for line in difflib.unified_diff(a, b, a_name, b_name):
            yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"


def _files(folder: Path) -> set[Path]:
    """The recipe's own files, relative; what is not copied is not compared."""
    left_out = shutil.ignore_patterns(*NOT_COPIED)
    found = set()
    for root, folders, names in os.walk(folder):
        ignored = left_out(root, [*folders, *names])
        folders[:] = [each for each in folders if each not in ignored]
        found |= {(Path(root) / each).relative_to(folder) for each in names if each not in ignored}
    return found


def _text(file: Path) -> str | None:
    """The file as text; None for what is none, and for folders and links."""
    if file.is_symlink() or not file.is_file():
        return None
    try:
        return file.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        return None


def _write(file: Path, text: str) -> None:
    mode = file.stat().st_mode
    write_text(file, text)
    file.chmod(mode)
