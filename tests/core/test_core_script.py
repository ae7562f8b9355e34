"""--dry-run prints a script that bash runs as the plan says, whatever stands in paths and values."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from core_support import edit, tree, wrapper
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common import plan
from common.plan import Plan
from common.request import Request
from common.run import script

NASTY = ["with spaces", "跑道", "it's", 'a "quote"', "$HOME `id` $(id)", "two\nlines", "\\", "-n", "*", "#", "!x", "~"]


@pytest.fixture
def make(recipe_folder: Path, tmp_path: Path) -> Callable[..., Plan]:
    def made(*assignments: str, **options: Any) -> Plan:
        options.setdefault("output", tmp_path / "run")
        return plan.make(Request(recipe=recipe_folder, assignments=assignments, **options))

    return made


def bash(text: str, *options: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", *options], input=text, capture_output=True, text=True, **more)


def check(text: str) -> None:
    done = bash(text, "-n")
    assert (done.returncode, done.stderr) == (0, "")


def run_only_the_files(made: Plan) -> None:
    """The script up to the first stage: variables, folders, the configuration."""
    text = script.render(made).split("\n# weights\n")[0]
    done = bash(text + "\n")
    assert done.returncode == 0, done.stderr
    written = yaml.safe_load(made.config_file.read_text(encoding="utf-8"))
    assert written == made.config


@pytest.mark.parametrize("name", NASTY)
def test_paths_and_values_of_any_kind(make: Callable[..., Plan], tmp_path: Path, name: str) -> None:
    quoted = yaml.safe_dump(name, allow_unicode=True, default_style='"').strip()
    made = make(f"config.sft.new={quoted}", output=tmp_path / name / "run", data=f"someone/{name}")
    assert made.config["sft"]["new"] == name
    check(script.render(made))
    run_only_the_files(made)


def test_every_line_of_the_summary_is_a_comment(make: Callable[..., Plan], tmp_path: Path) -> None:
    made = make(output=tmp_path / "a\ntouch b")
    head = script.render(made).split("\nset -euo")[0]
    assert all(line.startswith("#") for line in head.splitlines())


@given(value=st.text(alphabet=st.sampled_from("END\n 'x\"$:#-"), max_size=12))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_value_ends_the_configuration_early(make: Callable[..., Plan], value: str) -> None:
    made = make()
    made.config["sft"]["new"] = value
    made.config["optim"] = value
    made.config["many"] = [value, {"END": value}]
    text = script.render(made)
    inside = text.split("<<'END'\n", 1)[1].split("\nEND\n", 1)[0]
    assert yaml.safe_load(inside) == made.config


def test_the_script_runs_the_recipe(make: Callable[..., Plan], environments: Path) -> None:
    made = make(output=environments.parent / "a run $x")
    done = bash(script.render(made))
    assert done.returncode == 0, done.stderr
    files = tree(made.run)
    assert files["adapter/weights"] == "adapter"
    assert files["trained"] == "once\n"
    assert (made.run / "model").is_dir()
    assert files["weights/written"].endswith("tiny " + str(made.run / "weights.partial"))
    assert "--eval-input" in files["data/written"] and "--eval-fraction" not in files["data/written"]
    assert not list(made.run.glob("*.partial"))


def test_the_script_stops_at_the_first_failure(
    make: Callable[..., Plan], environments: Path, recipe_folder: Path
) -> None:
    (recipe_folder / "before_data.py").write_text("sys.exit(3)")
    made = make()
    assert bash(script.render(made)).returncode == 3
    assert (made.run / "weights").is_dir()
    assert not (made.run / "data").exists()


def test_a_stage_that_leaves_a_part_out(make: Callable[..., Plan], environments: Path, recipe_folder: Path) -> None:
    edit(recipe_folder / "stage.py", '    (out / "model").mkdir()\n', "")
    made = make()
    done = bash(script.render(made))
    assert done.returncode == 0, done.stderr
    assert (made.run / "adapter").is_dir() and not (made.run / "model").exists()


@pytest.mark.parametrize(
    ("value", "expanded"),
    [
        ("plain", "plain"),
        ("", ""),
        ("/x:${PATH_HERE}", "/x:a b$c"),
        ("${NOT_SET}:/x", ":/x"),
        ("$(id) `id` \"q\" 'q' ${PATH_HERE}", "$(id) `id` \"q\" 'q' a b$c"),
        ("$PATH_HERE", "$PATH_HERE"),
        ("${PATH_HERE}${PATH_HERE}", "a b$ca b$c"),
        ("${NOT_SET:-/usr/x}/y ${PATH_HERE:-/usr/x}", "/usr/x/y a b$c"),
        ("${NOT_SET:-$(id)}", "${NOT_SET:-$(id)}"),
    ],
)
def test_a_variable_has_the_value_that_the_run_gives_it(
    value: str, expanded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH_HERE", "a b$c")
    monkeypatch.delenv("NOT_SET", raising=False)
    done = bash(f'set -eu\nexport A={script.assigned(value)}\nprintf %s "$A"', env=dict(os.environ))
    assert (done.stdout, done.stderr) == (expanded, "")
    assert plan.expand(value) == expanded


def test_a_vendors_platform_on_a_machine_where_its_variables_are_not_set(
    make: Callable[..., Plan], recipe_folder: Path, tmp_path: Path
) -> None:
    edit(
        recipe_folder / "recipe.yaml",
        "  cpu: {tier",
        "  iluvatar_bi_v150: {tier: declared, requirements: requirements.txt}\n  cpu: {tier",
    )
    edit(recipe_folder / "recipe.yaml", "[cpu, nvidia_80gb]", "[cpu, iluvatar_bi_v150]")
    made = make(platform="iluvatar_bi_v150")
    head = script.render(made).split("mkdir -p")[0]
    wrapper(tmp_path / "bin" / "x", "true")
    done = bash(head + 'printf %s "$LD_LIBRARY_PATH"', env={"PATH": os.environ["PATH"]})
    assert (done.returncode, done.stdout) == (0, "/usr/local/corex/lib64:"), done.stderr
