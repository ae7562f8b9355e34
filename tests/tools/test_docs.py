"""The documents: every command of every page is run here, or it is said where; tests that are named are there."""

from __future__ import annotations

import itertools
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from example_project import ROOT
from in_process import call, tools

from common import recipe
from common.run.__main__ import app as run_app

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "recipes").glob("*/README*.md")])
TEST = re.compile(r"`((?:tests|recipes)/[\w/.-]+\.py)::(\w+)`")
LIGHT = r"(?:\.envs/tools/bin/)?python -m "
RUN_SH = re.compile(r"(?:bash recipes/(\w+)/run\.sh|\.\.\.)(?: |$)")

ELSEWHERE = {
    r"bash tools/test\.sh": "it is what runs this",
    LIGHT + r"tools (new|diff)": "tests/tools/test_copying.py::test_a_copy_states_its_parent_and_lint_finds_nothing",
    LIGHT
    + r"tools onboard": "tests/tools/test_onboard.py::test_a_made_up_platform_like_cpu_is_verified_on_this_machine",
    LIGHT + r"tools report": "tests/tools/test_reports.py::test_one_run_is_its_report_and_nothing_is_written",
    LIGHT + r"tools plan .*--verify": "tests/memory/test_memory_tracker.py, in a recipe's environment",
    LIGHT + r"common\.evaluation generate --model runs/": "the session of the recipe, on the model that it trained",
    r"\.envs/HASH/bin/python|python recipes/": "the session of the recipe, in its environment",
}
"""Commands that are not run here, and where they are."""
PAGES_ELSEWHERE = {
    "evaluation.md": "tests/evaluation/test_evaluation_page.py runs it from top to bottom",
    "lints.md": "its blocks are examples, most of them wrong; tests/tools/test_lint.py plants their like",
}

STANDS_FOR = {
    "FILE": "data.jsonl",
    "tokenizer.model": "tiny",
    "DIR": "prepared",
    "SRC": "model",
    "PATH": "model",
    "A": "model",
    "B": "model",
    "DST": "new",
    "hf|mindspore|mindspore-safetensors|meta": "meta",
}
"""Words of common.data's and common.weights' pages, and what is there in the test."""


def commands(page: Path) -> Iterator[str]:
    """The commands of the page's shell blocks, without comments, with continued lines joined."""
    language: str | None = None
    block: list[str] = []
    for line in page.read_text(encoding="utf-8").splitlines():
        if not line.startswith("```"):
            block.append(line)
            continue
        if language in ("", "bash"):
            for command in "\n".join(block).replace("\\\n", " ").splitlines():
                words = shlex.split(command, comments=True)
                while words and re.match(r"\w+=", words[0]):  # a variable, for this command
                    words = words[1:]
                if words:
                    yield shlex.join(words)
        language, block = (line.removeprefix("```").strip() if language is None else None), []


FOUND = sorted({command for page in PAGES if page.name not in PAGES_ELSEWHERE for command in commands(page)})
NOT_HERE = {each: where for each in FOUND for pattern, where in ELSEWHERE.items() if re.match(pattern, each)}
HERE = [each for each in FOUND if each not in NOT_HERE]


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the pages' commands take: weights, data, and data that are prepared."""
    folder = tmp_path_factory.mktemp("place")
    samples = recipe.find("fsdp_qlora_70b") / "samples"
    (folder / "data.jsonl").write_bytes(next(samples.glob("*train*.jsonl")).read_bytes())
    prepare = "common.data prepare --input data.jsonl --tokenizer tiny --template llama3 --output prepared"
    for words in ("common.weights get tiny model", prepare):
        module(folder, words.split())
    return folder


def module(folder: Path, words: list[str]) -> None:
    """`python -m WORDS` in `folder`."""
    variables = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    ran = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, cwd=folder, env=variables)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("command", HERE)
def test_a_command_is_right_as_written(
    command: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of run.sh the whole plan is made (--dry-run); every other command runs to its end."""
    monkeypatch.chdir(tmp_path)
    words = shlex.split(command.split(" '>' ")[0])
    if of_recipe := RUN_SH.match(command):
        dry_run(of_recipe[1] or "fsdp_qlora_70b", words)
    elif words[2] == "tools":
        words = [{"ID": "cpu", "DIR": str(place / "model"), "FILE": str(place / "data.jsonl")}.get(w, w) for w in words]
        status, out, err = tools(*words[3:])
        assert status == 0 or (status == 1 and words[3] in ("doctor", "plan")), out + err
        assert (out or words[3] == "lint") and "Traceback" not in err
    else:
        assert words[2].startswith("common."), f"{command}: run it here, or say in ELSEWHERE where it is run"
        for name in ("data.jsonl", "model", "prepared"):
            (tmp_path / name).symlink_to(place / name)
        stands_for = STANDS_FOR | ({"DIR": "model"} if words[2] == "common.weights" else {})
        pairs = itertools.pairwise(words[1:])
        module(tmp_path, ["output" if before == "--output" else stands_for.get(word, word) for before, word in pairs])


def dry_run(name: str, words: list[str]) -> None:
    name = name if (ROOT / "recipes" / name).is_dir() else "fsdp_qlora_70b"  # NAME, mine
    given = words[next(index for index, word in enumerate(words) if word == "..." or word.endswith("run.sh")) + 1 :]
    presets = recipe.read(recipe.find(name))[0].presets
    preset = presets[given[given.index("--preset") + 1] if "--preset" in given else "smoke"]
    given = [preset.platforms[0] if word == "ID" else word for word in given]
    here = [] if "--platform" in given else ["--platform", preset.platforms[0]]  # else: the machine's own
    status, out, err = call(run_app, name, *given, *here, *([] if "--dry-run" in given else ["--dry-run"]))
    assert status == 0, err
    assert "train" in out


def test_what_is_run_elsewhere_is_run_there() -> None:
    for where in set(ELSEWHERE.values()):
        if file := re.match(r"tests/[\w/]+\.py", where):
            assert (ROOT / file[0]).is_file(), where
            test = where.partition("::")[2]
            assert not test or f"def {test}(" in (ROOT / file[0]).read_text(encoding="utf-8"), where
    assert len(HERE) > 3 * len(NOT_HERE) > 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_tests_that_are_named_exist(page: Path) -> None:
    for stated, name in TEST.findall(page.read_text(encoding="utf-8")):
        of_recipe = page.parent.parent.name == "recipes" and stated.startswith("tests/")
        file = (page.parent if of_recipe else ROOT) / stated
        assert file.is_file(), f"{page.name}: {stated}"
        assert re.search(rf"^def {name}\(", file.read_text(encoding="utf-8"), re.MULTILINE), f"{stated}::{name}"


def test_there_is_something_to_check() -> None:
    assert TEST.findall((ROOT / "docs" / "correctness.md").read_text(encoding="utf-8"))
