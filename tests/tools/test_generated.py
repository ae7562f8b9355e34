"""Generated tables, commands, pages and schemas."""

from __future__ import annotations

import json
from pathlib import Path

from example_project import tools, write


def test_fix_writes_what_lint_found_and_nothing_else(project: Path) -> None:
    readme = project / "recipes" / "example" / "README.md"
    before = readme.read_text(encoding="utf-8")
    readme.write_text(
        before.replace("3 × 5 × 2", "9 × 9 × 9").replace("By hand, before.", "By hand, changed."), "utf-8"
    )
    (project / "docs" / "schema" / "recipe.json").unlink()
    assert tools(project, "lint", "--rule", "7").returncode == 1
    fixed = tools(project, "lint", "--rule", "7", "--fix")
    assert fixed.returncode == 0, fixed.stdout
    assert "rewritten: recipes/example/README.md" in fixed.stderr
    assert readme.read_text(encoding="utf-8") == before.replace("By hand, before.", "By hand, changed.")
    assert (project / "docs" / "schema" / "recipe.json").is_file()
    assert "rewritten" not in tools(project, "lint", "--rule", "7", "--fix").stderr


def test_fix_keeps_to_the_paths(project: Path) -> None:
    readme = project / "recipes" / "example" / "README.md"
    readme.write_text(readme.read_text(encoding="utf-8").replace("3 × 5 × 2", "9 × 9 × 9"), encoding="utf-8")
    tools(project, "lint", "--fix", "docs")
    assert "9 × 9 × 9" in readme.read_text(encoding="utf-8")


def test_a_broken_marker_leaves_the_file_as_it_is(project: Path) -> None:
    readme = project / "recipes" / "example" / "README.md"
    text = readme.read_text(encoding="utf-8") + "<!-- generated: results -->\nprecious words\n"
    readme.write_text(text, encoding="utf-8")
    ran = tools(project, "readme")
    assert ran.returncode == 2
    assert "the part 'results' has no <!-- end -->" in ran.stderr
    assert readme.read_text(encoding="utf-8") == text


def test_recipe_tables_say_what_recipe_yaml_says(pristine: Path) -> None:
    text = (pristine / "recipes" / "example" / "README.md").read_text(encoding="utf-8")
    assert "bash recipes/example/run.sh\n" in text
    assert "bash recipes/example/run.sh --preset full --model DIR_OR_HUB_ID --data PATH_OR_HUB_ID\n" in text
    assert "3 × 5 × 2 = 30 of up to 128 tokens" in text  # smoke, two processes
    assert "3 × 5 × 4 = 60 of up to 128 tokens" in text  # full overrides the processes
    assert "| 22 GiB | 127 GiB | not measured here: somebody |" in text
    assert r"| It was wrong \| badly. | It is right. | `tests/test_example.py::test_right` |" in text


def test_every_rule_is_on_the_page_of_rules(project: Path) -> None:
    page = project / "docs" / "lints.md"
    write(page, "# Rules\n\n<!-- generated: lints -->\n<!-- end -->\n")
    assert tools(project, "readme").returncode == 0
    text = page.read_text(encoding="utf-8")
    wrong = tools(project, "lint", "--rule", "x").stderr
    last = int(wrong.split("L001 to L")[1][:3])
    assert [f"## L{number:03}:" in text for number in range(1, last + 1)] == [True] * last
    assert text.count("Not so:") == last
    # An example on that page shows the markers themselves
    assert "up to date" in tools(project, "readme").stderr


def test_a_table_of_all_recipes_goes_into_the_top_readme(project: Path) -> None:
    write(project / "README.md", "<!-- generated: recipes -->\n<!-- end -->\n")
    tools(project, "readme")
    row = "| [example](recipes/example/README.md) | A recipe of the tests | torch | `smoke`, `full` |"
    assert row in (project / "README.md").read_text(encoding="utf-8")


def test_schema_describes_every_key_and_refuses_others(pristine: Path) -> None:
    schema = json.loads((pristine / "docs" / "schema" / "recipe.json").read_text(encoding="utf-8"))
    parts = [schema, *schema["$defs"].values()]
    assert [
        part["title"] for part in parts if part["type"] == "object" and part["additionalProperties"] is not False
    ] == []
    assert {"summary", "framework", "stages", "presets", "platforms"} <= set(schema["required"])
    assert schema["$defs"]["Data"]["properties"]["max_length"]["description"] == "Tokens of a row."
    platform = json.loads((pristine / "docs" / "schema" / "platform.json").read_text(encoding="utf-8"))
    assert platform["properties"]["devices_per_card"]["minimum"] == 1
