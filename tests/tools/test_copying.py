"""tools new and tools diff: a copy works at once, and says what it is a copy of."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from example_project import ROOT, tools, write

from tools import copying


def text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def test_a_copy_states_its_parent_and_lint_finds_nothing(project: Path) -> None:
    write(project / "recipes" / "example" / "golden.json", "{}")
    write(project / "recipes" / "example" / "__pycache__" / "train.pyc", "x")
    (project / "recipes" / "example" / "run.sh").chmod(0o755)
    ran = tools(project, "new", "mine", "--from", "example")
    assert ran.returncode == 0, ran.stderr
    mine = project / "recipes" / "mine"
    assert "parent: example at no commit\n" in text(mine / "recipe.yaml")
    assert "bash recipes/mine/run.sh" in text(mine / "README.md")
    assert "recipes/example" not in text(mine / "README.md")
    assert os.access(mine / "run.sh", os.X_OK)
    assert not (mine / "golden.json").exists() and not (mine / "__pycache__").exists()
    ran = tools(project, "lint")
    assert ran.returncode == 0, ran.stdout
    assert text(mine / "run.sh") == text(project / "recipes" / "example" / "run.sh")


def test_a_copy_claims_no_tier_of_its_parents(project: Path) -> None:
    assert "tier: smoked" in text(project / "recipes" / "example" / "recipe.yaml")
    tools(project, "new", "mine", "--from", "example")
    copied = text(project / "recipes" / "mine" / "recipe.yaml")
    assert "smoked" not in copied and "log:" not in copied


def test_the_commit_of_the_parent_is_recorded(project: Path) -> None:
    git = ["git", "-C", str(project), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    for name in ("mine", "yours"):  # the first copy changes pages of the project, and not the parent
        tools(project, "new", name, "--from", "example")
        assert f"parent: example at {head}\n" in text(project / "recipes" / name / "recipe.yaml")
    tools(project, "new", "theirs", "--from", "mine")
    assert f"parent: mine at {head}+changes\n" in text(project / "recipes" / "theirs" / "recipe.yaml")


def test_corrections_that_a_copy_shares_with_its_parent_stand_once(project: Path) -> None:
    write(project / "docs" / "correctness.md", "<!-- generated: corrected -->\n<!-- end -->\n")
    tools(project, "new", "a_copy", "--from", "example")
    page = text(project / "docs" / "correctness.md")
    assert page.count("It was wrong") == 1 and "| example | It was wrong" in page
    file = project / "recipes" / "a_copy" / "recipe.yaml"
    write(file, text(file).replace("It was wrong", "It was slow"))
    tools(project, "lint", "--fix")
    assert "| a_copy | It was slow" in text(project / "docs" / "correctness.md")


def test_a_copy_of_a_copy_has_one_parent(project: Path) -> None:
    tools(project, "new", "mine", "--from", "example")
    tools(project, "new", "yours", "--from", "mine")
    assert text(project / "recipes" / "yours" / "recipe.yaml").count("parent: ") == 1
    assert "parent: mine at" in text(project / "recipes" / "yours" / "recipe.yaml")


def test_diff_shows_what_was_changed_on_either_side_and_not_the_name(project: Path) -> None:
    tools(project, "new", "mine", "--from", "example")
    config = project / "recipes" / "mine" / "recipe.yaml"
    write(config, text(config).replace("max_steps: 4", "max_steps: 40"))
    write(project / "recipes" / "mine" / "more.py", "x = 1\n")
    parent = project / "recipes" / "example" / "train.py"
    write(parent, text(parent) + "later = 1\n")
    ran = tools(project, "diff", "mine")
    assert ran.returncode == 0, ran.stderr
    changed = [line for line in ran.stdout.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    assert "-later = 1" in changed and "+x = 1" in changed
    assert any(line.startswith("+train:") and "max_steps: 40" in line for line in changed)
    assert not any("run.sh" in line or "parent:" in line for line in changed), changed


def test_nothing_differs_in_an_untouched_copy_and_a_claim_does(project: Path) -> None:
    parent = project / "recipes" / "example" / "README.md"
    write(parent, text(parent) + "\n<!-- generated: platforms -->\n<!-- end -->\n")
    tools(project, "lint", "--fix")
    assert "| smoked |" in text(parent)
    tools(project, "new", "mine", "--from", "example")
    ran = tools(project, "diff", "mine")
    assert (ran.returncode, ran.stdout) == (0, "") and "nothing differs" in ran.stderr
    config, page = (project / "recipes" / "mine" / name for name in ("recipe.yaml", "README.md"))
    write(config, text(config).replace("tier: declared", "tier: smoked", 1))
    write(page, text(page) + "More.\n")
    assert tools(project, "lint", "--fix").stderr.count("mine/README.md") == 1
    changed = [line for line in tools(project, "diff", "mine").stdout.splitlines() if line[:1] in "+-"]
    changed = [line for line in changed if line[:3] not in ("+++", "---")]
    assert "+More." in changed and sum("tier: smoked" in line for line in changed) == 1
    assert not any(line.startswith(("+|", "-|")) for line in changed), changed


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["new", "example", "--from", "example"], "exists already"),
        (["new", "Mine-2", "--from", "example"], "is no name of a recipe"),
        (["new", "../mine", "--from", "example"], "is no name of a recipe"),
        (["new", "mine", "--from", "exampel"], "did you mean 'example'?"),
        (["diff", "example"], "has no parent"),
    ],
)
def test_a_wrong_call_is_one_message_and_leaves_nothing(project: Path, arguments: list[str], says: str) -> None:
    before = sorted(path.name for path in (project / "recipes").iterdir())
    ran = tools(project, *arguments)
    assert ran.returncode == 2 and says in ran.stderr and "Traceback" not in ran.stderr
    assert sorted(path.name for path in (project / "recipes").iterdir()) == before


def test_a_name_is_replaced_only_where_it_is_a_word() -> None:
    assert (
        copying.rename("recipes/old/run.sh old old_cpu.txt bold", "old", "new")
        == "recipes/new/run.sh new old_cpu.txt bold"
    )
    assert copying.rename("tools/bench/old.py docs/logs/old", "old", "new") == "tools/bench/old.py docs/logs/old"


def test_every_recipe_of_the_project_can_be_copied() -> None:
    """The copy of each real recipe reads, and differs only in what it may not claim."""
    for folder in sorted(file.parent for file in (ROOT / "recipes").glob("*/recipe.yaml")):
        declared = copying._declared(text(folder / "recipe.yaml"), f"{folder.name} at abc")
        assert "tier: smoked" not in declared and "tier: verified" not in declared
        assert f"\nparent: {folder.name} at abc\n" in declared
