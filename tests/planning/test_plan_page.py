"""docs/plan.md: its commands run as written, and its table is what the estimate says."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from plan_support import ROOT, plan

from common import recipe
from common.plan import environment_spec

PAGE = (ROOT / "docs" / "plan.md").read_text(encoding="utf-8")
COMMANDS = [
    line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines() if line.strip()
]


def test_the_page_has_commands() -> None:
    assert len(COMMANDS) >= 8
    assert all(command.startswith("python -m tools plan ") for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_runs_as_written(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words, _, redirected = command.partition(" > ")
    arguments = shlex.split(words)[4:]
    folder = recipe.find(arguments[0])
    if "--verify" in arguments and not environment_spec(folder, recipe.read(folder)[0], "cpu").complete():
        pytest.skip("the recipe's environment is not there: run recipes/fsdp_qlora_70b once")
    monkeypatch.chdir(tmp_path)
    ran = plan(*arguments)
    too_much = "--set data.max_length=8192" in command
    assert ran.returncode == (1 if too_much else 0), ran.stdout + ran.stderr
    assert ("It does not fit" in ran.stdout) == too_much
    if "--plot" in arguments:
        assert (tmp_path / arguments[arguments.index("--plot") + 1]).stat().st_size > 10_000
    if redirected.endswith(".sbatch"):
        subprocess.run(["bash", "-n"], input=ran.stdout, text=True, check=True)
    if redirected.endswith(".yaml"):
        assert yaml.safe_load(ran.stdout)["kind"] == "TrainJob"
    if "--verify" in arguments:
        difference = re.search(r"\(([+-][\d.]+)%\)", ran.stdout)
        assert difference and abs(float(difference[1])) < 10


def test_the_moments_are_those_of_the_estimate() -> None:
    from common.memory.estimate import STEP_MOMENTS

    named = re.findall(r"^\| ([a-z ]+) \| ", PAGE, re.MULTILINE)
    assert [name for name in named if name in ("load", *STEP_MOMENTS, "save")] == ["load", *STEP_MOMENTS, "save"]


def test_the_reserve_is_the_one_that_is_kept() -> None:
    from common.memory import fit

    assert f"{fit.CONTEXT_GIB} GiB for the" in PAGE
    assert f"{fit.FRAGMENTATION * 100:g} % for what" in PAGE.replace("\n", " ")
