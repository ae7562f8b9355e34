"""tools onboard: a platform's file, what this machine does as one, and the tier that this proves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from example_project import ROOT, tools

from common import plan, recipe
from common.request import Request
from common.run.state import lock
from tools.onboarding import conformance, platform_file
from tools.onboarding.conformance import NEEDED, Result, as_markdown

TORCH = os.environ.get("LLAMA3_TORCH_PYTHON")


def test_the_platform_file_and_the_recipe_that_names_it(project: Path) -> None:
    ran = tools(project, "onboard", "madeup", "--like", "cpu", "--recipe", "example", "--only-file")
    assert ran.returncode == 0, ran.stderr
    text = (project / "common" / "platforms" / "madeup.yaml").read_text()
    assert text.startswith("# madeup: made from cpu.yaml") and "tier: declared" in text and "smoked" not in text
    listed = {each["id"]: each for each in json.loads(tools(project, "list", "platforms", "--json").stdout)}
    assert listed["madeup"]["recipes"] == ["example"] and listed["madeup"]["tier"] == "declared"
    ran = tools(project, "lint")
    assert ran.returncode == 0, ran.stdout
    recipe = (project / "recipes" / "example" / "recipe.yaml").read_text()
    assert "platforms: [cpu, madeup]" in recipe
    before = recipe
    assert tools(project, "onboard", "madeup", "--recipe", "example", "--only-file").returncode == 0
    assert (project / "recipes" / "example" / "recipe.yaml").read_text() == before, "a second time changes nothing"


@pytest.mark.parametrize("name", sorted(file.parent.name for file in (ROOT / "recipes").glob("*/recipe.yaml")))
def test_every_recipe_treats_the_platform_as_the_one_it_is_like(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    shutil.copy(ROOT / "recipes" / name / "recipe.yaml", folder)
    assert platform_file.declare(folder, "madeup", "cpu") == [folder / "recipe.yaml"]
    read, _ = recipe.read(folder)
    assert "madeup" in read.presets["smoke"].platforms
    made = read.platforms["cpu"].model_copy(update={"tier": "declared", "log": None})
    assert read.platforms["madeup"] == made, "with its pins, its patches and its own configuration"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["madeup", "--like", "cup"], "did you mean 'cpu'?"),
        (["Made-Up"], "is no id of a platform"),
        (["madeup", "--like", "ascend_32gb"], "smoke preset does not run on ascend_32gb"),
    ],
)
def test_a_wrong_call_is_one_message(project: Path, arguments: list[str], says: str) -> None:
    ran = tools(project, "onboard", *arguments, "--recipe", "example", "--only-file")
    assert ran.returncode == 2 and says in ran.stderr and "Traceback" not in ran.stderr


def result(**changes: Any) -> Result:
    probes = [{"probe": name, "name": name, "ok": True, "value": None, "detail": ""} for name in NEEDED]
    smoke = {"finished": True, "tokens_per_second": 10.0}
    values = {"platform": "p", "probes": probes, "smoke": smoke, **changes}
    return Result(recipe="r", framework="torch", date="2026-01-01", commit=None, machine={}, devices=2, **values)


def test_tiers() -> None:
    probes = result().probes
    assert result().tier == "verified"
    for index in range(len(NEEDED)):
        wrong = [{**each, "ok": each["ok"] and n != index} for n, each in enumerate(probes)]
        assert result(probes=wrong).tier == "smoked"
        assert result(probes=probes[:index] + probes[index + 1 :]).tier == "smoked", "a probe that did not run"
    assert result(smoke={"finished": True, "tokens_per_second": None}).tier == "smoked"
    assert result(smoke={"finished": False, "problem": "it failed"}).tier == "declared"
    assert result(probes=[*probes, {"probe": "matmul", "ok": False, "name": "", "value": 1, "detail": ""}]).tier == (
        "verified"
    )


def test_the_table_says_the_smoke_run_in_words() -> None:
    smoke = {
        "finished": True,
        "seconds": 240.578,
        "first_loss": 7.4779062,
        "last_loss": 6.17619,
        "tokens_per_second": 655.9,
    }
    told = as_markdown(result(platform="cpu", smoke=smoke))
    assert "Smoke of r: finished, 241 s, loss 7.4779 → 6.1762, 656 tokens/s." in told
    told = as_markdown(result(platform="cpu", smoke={"finished": False, "problem": "no disk"}))
    assert "Smoke of r: not finished: no disk." in told


PROBE = """
import os, sys, time
from pathlib import Path
print("a last word", flush=True)
words = sys.argv[1:]
probe, output = (words[words.index(option) + 1] for option in ("--probe", "--output"))
if probe == "collective":
    Path(output).with_suffix(".pid").write_text(str(os.getpid()))
    time.sleep(1000)
if probe == "golden":
    sys.exit(3)
Path(output).write_text('[{"probe": "dtype", "name": "float32", "ok": true, "value": 0.1, "detail": ""}]')
"""


def test_a_probe_that_hangs_or_crashes_is_ended_and_costs_only_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "probe.py"
    script.write_text(PROBE)
    planned = plan.make(Request(recipe=recipe.find("fsdp_qlora_70b"), output=tmp_path / "run"))
    monkeypatch.setattr(conformance.launchers, "launch", lambda name, python, *_: [python])

    def probe(name: str) -> dict[str, Any]:
        [line] = conformance._probe(name, planned, sys.executable, script, tmp_path)
        return line

    assert probe("dtype")["ok"]
    crashed = probe("golden")
    assert not crashed["ok"] and crashed["probe"] == "golden" and crashed["detail"] == "status 3: a last word"
    monkeypatch.setattr(conformance, "PROBE_SECONDS", 20)
    hung = probe("collective")
    assert not hung["ok"] and hung["detail"] == "ended after 20 s"
    assert not Path("/proc", (tmp_path / "collective.pid").read_text()).exists(), "nothing is left running"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The whole project, where platforms and recipes may be written."""
    left_out = shutil.ignore_patterns("__pycache__", ".*", "runs", "_build", "bench")
    return Path(shutil.copytree(ROOT, tmp_path / "checkout", ignore=left_out))


def test_one_platform_is_measured_once_at_a_time(checkout: Path) -> None:
    with lock(checkout / "runs" / "onboarding" / "cpu", 0):
        ran = tools(checkout, "onboard", "cpu", "--recipe", "fsdp_qlora_70b")
    assert ran.returncode == 2 and "two would measure the same devices" in ran.stderr, ran.stderr


@pytest.mark.skipif(not TORCH, reason="LLAMA3_TORCH_PYTHON does not name the Python of fsdp_qlora_70b's environment")
def test_a_made_up_platform_like_cpu_is_verified_on_this_machine(checkout: Path) -> None:
    assert TORCH
    variables = {**os.environ, "PYTHONPATH": str(checkout), "LLAMA3_RECIPES_ENVS": str(Path(TORCH).parents[2])}
    command = [sys.executable, "-m", "tools", "onboard", "madeup", "--like", "cpu", "--recipe", "fsdp_qlora_70b"]
    ran = subprocess.run(command, cwd=checkout, env=variables, capture_output=True, text=True, timeout=1500)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "tier: verified" in ran.stdout
    assert "right  two trainings, bit for bit" in ran.stderr, "each line is said when it is known"
    [written] = (checkout / "docs" / "onboarding").glob("madeup_torch_*.json")
    content = json.loads(written.read_text())
    assert content["tier"] == "verified" and content["smoke"]["tokens_per_second"] > 0
    assert {each["probe"] for each in content["probes"]} >= set(NEEDED)
    log = (checkout / "docs" / "logs" / "fsdp_qlora_70b_madeup.txt").read_text()
    assert str(checkout) not in log and "\x1b" not in log
    assert "| golden | full, 20 steps | right |" in written.with_suffix(".md").read_text()
