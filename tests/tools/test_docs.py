"""What the documents say exists: every command is one, every test that is named is there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from example_project import ROOT
from typer.testing import CliRunner

from common.run.__main__ import app as run_app
from tools.__main__ import app

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "recipes").glob("*/README*.md")])
FENCE = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
RUN_SH = "run.sh"
TEST = re.compile(r"`((?:tests|recipes)/[\w/.-]+\.py)::(\w+)`")


def commands(page: Path) -> Iterator[list[str]]:
    """The commands of the page's shell blocks, without comments and continued lines joined."""
    for block in FENCE.findall(page.read_text(encoding="utf-8")):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                yield words


def named(kind: str) -> list[object]:
    """Every command of a kind, once."""
    found = {}
    for page in PAGES:
        for words in commands(page):
            if " ".join(words).startswith(kind) or (
                kind == "run.sh" and words[:1] == ["bash"] and "run.sh" in words[1]
            ):
                found.setdefault(" ".join(words), pytest.param(words, id=" ".join(words)[:100]))
    return list(found.values())


def options(application: object, *path: str) -> set[str]:
    ran = CliRunner().invoke(application, [*path, "--help"], env={"COLUMNS": "300", "TERM": "dumb"})
    assert ran.exit_code == 0, ran.output
    return set(re.findall(r"--[a-z][\w-]*", ran.output))


@pytest.mark.parametrize("words", named("python -m tools"))
def test_tools_commands_are_as_written(words: list[str]) -> None:
    command = words[3]
    known = options(app, command)
    unknown = {word.split("=")[0] for word in words[4:] if word.startswith("--")} - known
    assert not unknown, f"{command} has no {', '.join(unknown)}"


@pytest.mark.parametrize("words", named(RUN_SH))
def test_run_commands_are_as_written(words: list[str]) -> None:
    """The recipe is there, or stands for one; every option is one, every preset is the recipe's."""
    name = Path(words[1]).parent.name
    unknown = {word.split("=")[0] for word in words[2:] if word.startswith("--")} - options(run_app)
    assert not unknown, f"run.sh has no {', '.join(unknown)}"
    if (ROOT / "recipes" / name).is_dir() and "--preset" in words:
        preset = words[words.index("--preset") + 1]
        text = (ROOT / "recipes" / name / "recipe.yaml").read_text(encoding="utf-8")
        assert re.search(rf"^  {re.escape(preset)}:", text, re.MULTILINE), f"{name} has no preset {preset}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_tests_that_are_named_exist(page: Path) -> None:
    for stated, name in TEST.findall(page.read_text(encoding="utf-8")):
        of_recipe = page.parent.parent.name == "recipes" and stated.startswith("tests/")
        file = (page.parent if of_recipe else ROOT) / stated
        assert file.is_file(), f"{page.name}: {stated}"
        assert re.search(rf"^def {name}\(", file.read_text(encoding="utf-8"), re.MULTILINE), f"{stated}::{name}"


def test_there_is_something_to_check() -> None:
    assert len(named("python -m tools")) >= 10 and len(named(RUN_SH)) >= 5
    assert TEST.findall((ROOT / "docs" / "correctness.md").read_text(encoding="utf-8"))
