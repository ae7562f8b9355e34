"""bash recipes/NAME/run.sh, for every recipe: a wrong call is one message, status 2, and nothing is written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from core_support import ROOT, fake_environments, tree

from common import recipe

FOLDERS = list(recipe.folders())
pytestmark = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


@pytest.fixture(autouse=True)
def _environments(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA3_RECIPES_ENVS", "")  # so that it is put back afterwards
    fake_environments(tmp_path / "environments", folder)


def run_sh(folder: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    words = ["bash", str(folder / "run.sh"), *arguments]
    return subprocess.run(words, cwd=cwd, capture_output=True, text=True, env=dict(os.environ), timeout=60)


def test_dry_run_from_another_directory(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere 别处").mkdir()
    before = tree(tmp_path)
    done = run_sh(folder, "--dry-run", "--output", "out", cwd=tmp_path / "elsewhere 别处")
    assert done.returncode == 0, done.stderr
    assert f"# output: {tmp_path}/elsewhere 别处/out\n" in done.stdout
    check = subprocess.run(["bash", "-n"], input=done.stdout, capture_output=True, text=True)
    assert (check.returncode, check.stderr) == (0, "")
    assert tree(tmp_path) == before


def test_help_names_every_option(folder: Path, tmp_path: Path) -> None:
    done = run_sh(folder, "--help", cwd=tmp_path)
    assert done.returncode == 0
    options = "preset model data set platform output dry-run only from fresh"
    for option in [*options.split(), "nproc-per-node", "nnodes", "node-rank", "master-addr", "master-port"]:
        assert f"--{option}" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--presett", "smoke"], "--presett"),
        (["--preset", "smoek"], "did you mean 'smoke'?"),
        (["--platform", "nvidia_24"], "did you mean 'nvidia_24gb'?"),
        (["--only", "tain"], "--only names no stage"),
        (["--set", "train.seed=1", "--set", "train.sed=2"], "did you mean 'train.seed'?"),
        (["--set", "train.seed=[1"], "is not YAML"),
        (["--set", "train.seed=true"], "train.seed"),
        (["--preset", "full"], "--model"),
        (["--nnodes", "2", "--node-rank", "2"], "--node-rank"),
        (["--data", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--output", "/sys/nothing-can-be-made-here"], "/sys/nothing-can-be-made-here"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_call(folder: Path, tmp_path: Path, arguments: list[str], says: str) -> None:
    if "--output" not in arguments:
        arguments = [*arguments, "--output", str(tmp_path / "out")]
    before = tree(tmp_path)
    done = run_sh(folder, *arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith("error: ") and says in done.stderr
    assert "Traceback" not in done.stderr
    assert tree(tmp_path) == before
    assert not (tmp_path / "out").exists()


def test_too_few_devices(folder: Path, tmp_path: Path) -> None:
    vendors = [name for name in recipe.read(folder)[0].presets["smoke"].platforms if name != "cpu"]
    if not vendors:
        pytest.skip("smoke is for the CPU alone")
    for name in vendors[:1]:
        done = run_sh(folder, "--platform", name, "--output", "out", "--nproc-per-node", "512", cwd=tmp_path)
        assert done.returncode == 2
        assert "too few devices: the run takes 512" in done.stderr
        assert not (tmp_path / "out").exists()


def test_a_reader_that_wants_only_the_beginning(folder: Path, tmp_path: Path) -> None:
    script = 'set -o pipefail; bash "$1" --dry-run | head -n 1'
    words = ["bash", "-c", script, "bash", str(folder / "run.sh")]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, env=dict(os.environ))
    assert (done.returncode, done.stdout, done.stderr) == (0, "#!/usr/bin/env bash\n", "")


def test_by_a_relative_path_where_cdpath_is_set(folder: Path) -> None:
    words = ["bash", str(folder.relative_to(ROOT) / "run.sh"), "--dry-run"]
    variables = {**os.environ, "CDPATH": str(ROOT)}
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env=variables)
    assert (done.returncode, done.stderr) == (0, "")


def test_it_uses_the_project_it_is_in(folder: Path, tmp_path: Path) -> None:
    done = run_sh(folder, "--dry-run", cwd=tmp_path)
    assert f"project: {ROOT}\n" in done.stdout
    assert sys.executable not in done.stdout
