"""The commands of both READMEs are commands: those for NPUs up to their plan, the others to their end."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import RECIPE, ROOT

SAMPLES = RECIPE / "samples"
STANDS_FOR = {
    "DIR_OR_HUB_ID": SAMPLES / "base",
    "PATH_OR_HUB_ID": SAMPLES / "problems.jsonl",
    "Meta-Llama-3-8B": SAMPLES / "base",
    "train.json": SAMPLES / "problems.jsonl",
    "evaluate.reading=dev-v1.1.json": f"evaluate.reading={SAMPLES / 'reading.json'}",
}


def commands() -> list[str]:
    """Every command in a block of both READMEs, and the complete ones in their tables."""
    found = []
    for name in ("README.md", "README.zh-CN.md"):
        text = (RECIPE / name).read_text(encoding="utf-8")
        for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL):
            found += [line for line in block.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]
        found += [each for each in re.findall(r"`(python -m common[^`]*)`", text) if "FILE" not in each]
    return sorted(set(found))


def test_there_are_commands() -> None:
    assert len(commands()) > 8


@pytest.mark.parametrize("command", commands())
def test_a_command_of_the_readme(command: str, tmp_path: Path) -> None:
    words = [str(STANDS_FOR.get(word, word)) for word in shlex.split(command) if word != "PYTHONPATH=."]
    if words[0] == "python":
        words[0] = sys.executable
        words = [str(ROOT / word) if word.startswith("recipes/") else word for word in words]
        if "split.py" in command:
            (tmp_path / "problems.jsonl").write_bytes((SAMPLES / "problems.jsonl").read_bytes())
    else:
        assert words[:2] == ["bash", "recipes/lora_contest/run.sh"]
        words[1] = str(RECIPE / "run.sh")
        if "--preset" in words and "--platform" not in words:
            words += ["--platform", "ascend_32gb"]
        words += [] if "--dry-run" in words else ["--dry-run"]
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=variables, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
