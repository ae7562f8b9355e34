"""docs/evaluation.md: its commands run as they stand there, on its files, and print what it says."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from common import environment
from common.evaluation.transformers_backend import CALLER_VARIABLE

PAGE = (environment.ROOT / "docs" / "evaluation.md").read_text("utf-8")
COMMANDS = re.findall(r"```bash\n(.*?)```(?:\n\n```text\n(.*?)```)?", PAGE, re.DOTALL)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with the files that the page shows."""
    for name, content in re.findall(r"`([\w.]+)`:\n\n```json\n(.*?)```", PAGE, re.DOTALL):
        (tmp_path / name).write_text(content, encoding="utf-8")
    return tmp_path


def run(folder: Path, line: str, **variables: str) -> str:
    words = [sys.executable if word == "python" else word for word in shlex.split(line)]
    environ = {**os.environ, "PYTHONPATH": str(environment.ROOT), **variables}
    done = subprocess.run(words, capture_output=True, text=True, cwd=folder, env=environ)
    assert done.returncode == 0, (line, done.stderr)
    return done.stdout


def test_scoring_prints_what_the_page_says(files: Path) -> None:
    shown = [(commands, said) for commands, said in COMMANDS if said]
    assert len(shown) == 4
    for commands, said in shown:
        assert "".join(run(files, line) for line in commands.splitlines()) == said


def test_a_model_is_asked_and_scored(files: Path, finished_run: Path, torch_python: Path) -> None:
    (commands,) = [commands for commands, said in COMMANDS if not said]
    outputs = [
        run(files, line.replace("RUN/", f"{finished_run}/"), **{CALLER_VARIABLE: str(torch_python)})
        for line in commands.splitlines()
    ]
    (row,) = [json.loads(line) for line in (files / "said.jsonl").read_text("utf-8").splitlines()]
    assert row["id"] == "q1" and row["references"] == ["Ada"] and row["prediction"]
    assert outputs[2].startswith("emf1: F1 ") and outputs[3].startswith("loss ")
