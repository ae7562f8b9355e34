"""The project's checks: `bash tools/test.sh`, or `nox -s NAME` in the light environment.

Each recipe has a session test-<folder>; nothing is listed anywhere else.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nox

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT))

from common import environment, plan, recipe  # noqa: E402

CHECKS = ("ruff==0.17.5", "mypy==2.4.1", "types-pyyaml")
TESTS = ("pytest==9.2.0", "hypothesis==6.170.15", "pytest-timeout==2.4.0")
RECIPES = [folder.name for folder in recipe.folders()]

nox.options.sessions = ["lint", "tests", "docs", *(f"test-{name}" for name in RECIPES)]
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = True


@nox.session
def lint(session: nox.Session) -> None:
    """Style, types, and the rules of the house."""
    session.install("-r", "requirements.txt", *CHECKS)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.run("python", "-m", "tools", "lint")


@nox.session
def tests(session: nox.Session) -> None:
    """What all recipes share, in the light environment's packages."""
    session.install("-r", "requirements.txt", *TESTS)
    session.run("python", "-m", "pytest", "tests", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation, warnings as errors."""
    session.install("-r", "docs/requirements.txt")
    session.run("sphinx-build", "-q", "-W", "-b", "html", "docs", "docs/_build/html")


@nox.session(venv_backend="none")
def bench(session: nox.Session) -> None:
    """Speed and memory, as ratios taken in one run; never part of the default."""
    light = environment.ensure(environment.light_spec())
    for script in sorted((ROOT / "tools" / "bench").glob("*.py")):
        if "def main(" in script.read_text(encoding="utf-8"):
            session.run(str(light), "-m", f"tools.bench.{script.stem}", *session.posargs, external=True)


def test_recipe(session: nox.Session, name: str) -> None:
    """One recipe: its smoke preset once, then its tests on that run, in its own environment."""
    folder = ROOT / "recipes" / name
    spec = plan.environment_spec(folder, recipe.read(folder)[0], "cpu")
    session.log(f"environment {spec.folder()} from {spec.requirements}")
    try:
        python = environment.ensure(spec)
    except environment.EnvironmentFailure as failure:
        session.error(str(failure))
    variables = {"PYTHONPATH": str(ROOT), "LLAMA3_RECIPES_ENVS": str(environment.home())}
    session.run(
        str(python),
        "-m",
        "pytest",
        f"recipes/{name}/tests",
        *session.posargs,
        env={**os.environ, **variables},
        external=True,
    )


for recipe_name in RECIPES:

    def session_of(session: nox.Session, name: str = recipe_name) -> None:
        test_recipe(session, name)

    session_of.__doc__ = f"The recipe {recipe_name}, in an environment of its own."
    nox.session(session_of, name=f"test-{recipe_name}", venv_backend="none")
