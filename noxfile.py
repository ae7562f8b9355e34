"""The project's checks: `bash tools/test.sh`, or `nox -s NAME` in the light environment.

Each recipe has a session test-<folder>; nothing is listed anywhere else.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path

import nox

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT))

from common import environment, plan, recipe  # noqa: E402

CHECKS = ("ruff==0.17.5", "mypy==2.4.1")
TESTS = ("pytest==9.2.0", "hypothesis==6.170.15", "pytest-timeout==2.4.0", "pytest-xdist==3.8.0")
AT_ONCE = ("-n", "auto", "--maxprocesses", "4", "--dist", "loadfile")  # a file's tests share what they made
# What only tests compare with: ModelScope's client, the contest's word splitter, Kubeflow's models of a TrainJob
COMPARED_WITH = ("modelscope==1.40.2", "jieba==0.42.1", "kubeflow-trainer-api==2.3.0")
RECIPES = [folder.name for folder in recipe.folders()]

nox.options.sessions = ["lint", "tests", "docs", *(f"test-{name}" for name in RECIPES)]
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = True


@nox.session
def lint(session: nox.Session) -> None:
    """Style, types, and the rules of the house."""
    session.install(*CHECKS)
    light = str(environment.ensure(environment.light_spec()))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy", "--python-executable", light)
    session.run(light, "-m", "tools", "lint", external=True)


@nox.session
def tests(session: nox.Session) -> None:
    """What all recipes share, in the light environment's packages; what needs a framework, in a recipe's."""
    session.install("-r", "requirements.txt", *TESTS, *COMPARED_WITH)
    torch, mindspore = (python_of(session, name) for name in ("fsdp_qlora_70b", "mindformers_ascend"))
    variables = {"LLAMA3_TORCH_PYTHON": torch, "LLAMA3_MINDSPORE_PYTHON": mindspore}
    session.run("python", "-m", "pytest", "tests", *(session.posargs or AT_ONCE), env=variables)
    if session.posargs:
        return
    if torch:
        ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
        packages = str(session.run("python", "-c", ask, silent=True)).strip()
        if (Path(torch).parents[1] / "lib" / Path(packages).parent.name).is_dir():  # the same Python's
            variables = {"PYTHONPATH": os.pathsep.join([str(ROOT), packages])}
            session.run(torch, "-m", "pytest", "tests/weights/test_torch_real.py", env=variables, external=True)
        else:
            session.warn(f"tests/weights/test_torch_real.py is skipped: {packages} is not for {torch}")
    if mindspore:
        file = "tests/weights/test_mindspore_real.py"
        variables = {"PYTHONPATH": str(ROOT), "LOG_MF_PATH": session.create_tmp()}  # MindFormers logs where it runs
        session.run(mindspore, "-m", "pytest", file, env=variables, external=True)


def python_of(session: nox.Session, name: str) -> str:
    """The interpreter of a recipe's environment; "" where that cannot be made."""
    try:
        return str(environment.ensure(recipe_spec(name)))
    except environment.EnvironmentFailure as failure:
        session.warn(f"tests that need {name}'s environment are skipped: {failure}")
        return ""


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation, warnings as errors."""
    session.install("-r", "docs/requirements.txt")
    session.run("sphinx-build", "-q", "-W", "-b", "html", "docs", "docs/_build/html")


@nox.session(venv_backend="none")
def bench(session: nox.Session) -> None:
    """Speed and memory, as ratios taken in one run; never part of the default. `-- weights` runs one of them."""
    light = str(environment.ensure(environment.light_spec()))
    torch = str(environment.ensure(recipe_spec("fsdp_qlora_70b")))
    mindspore = str(environment.ensure(recipe_spec("mindformers_ascend")))
    commands: dict[str, list[str]] = {
        "fsdp_qlora_70b": [light, "-m", "tools.bench.fsdp_qlora_70b"],
        "weights": [light, "-m", "tools.bench.weights"],
        "evaluation": [light, "-m", "tools.bench.evaluation", "--torch-python", torch],
    }
    if os.environ.get("LLAMA3_TOKENIZER"):
        baselines = ["--baseline-python", torch, "--mindformers-python", mindspore]
        commands["data"] = [light, "-m", "tools.bench.data", *baselines]
    else:
        session.warn("data is skipped: LLAMA3_TOKENIZER does not name Llama 3's tokenizer.model")
    commands["data_mindrecord"] = [mindspore, "-m", "tools.bench.data_mindrecord"]
    for name in session.posargs or commands:
        if name not in commands:
            session.error(f"there is no bench {name!r} here; there are {', '.join(commands)}")
        session.run(*commands[name], env={"PYTHONPATH": str(ROOT)}, external=True)


def recipe_spec(name: str) -> environment.Spec:
    """The environment of a recipe's tests: that of the CPU."""
    folder = ROOT / "recipes" / name
    return plan.environment_spec(folder, recipe.read(folder)[0], "cpu")


def test_recipe(session: nox.Session, name: str) -> None:
    """One recipe: its smoke preset once, then its tests on that run, in its own environment."""
    spec = recipe_spec(name)
    session.log(f"environment {spec.folder()} from {spec.requirements}")
    lacking = None
    try:
        environment.need_sources(spec)
    except environment.EnvironmentFailure as failure:
        lacking = str(failure)
        spec = dataclasses.replace(spec, sources=())  # the tests that need it skip themselves
    try:
        python = environment.ensure(spec)
    except environment.EnvironmentFailure as failure:
        session.error(str(failure))
    variables = {"PYTHONPATH": str(ROOT), "LLAMA3_RECIPES_ENVS": str(environment.home())}
    session.run(
        str(python),
        "-m",
        "pytest",
        *(["-rs"] if lacking else []),
        f"recipes/{name}/tests",
        *session.posargs,
        env={**os.environ, **variables},
        external=True,
    )
    if lacking:
        session.warn(f"{name}: ONLY A PART WAS TESTED. What needs its framework was skipped, because {lacking}")


for recipe_name in RECIPES:

    def session_of(session: nox.Session, name: str = recipe_name) -> None:
        test_recipe(session, name)

    session_of.__doc__ = f"The recipe {recipe_name}, in an environment of its own."
    nox.session(session_of, name=f"test-{recipe_name}", venv_backend="none")
