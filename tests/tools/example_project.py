"""A copy of the project with one small recipe and one patch, and the real command lines run in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

RECIPE = """\
summary: A recipe of the tests
maintainers: [somebody]
reproduces:
  name: an original
  source: somewhere
  corrected:
    - {defect: It was wrong | badly., correction: It is right., test: tests/test_example.py::test_right}
framework: torch
launcher: torchrun
python: {min: "3.11", max: "3.12", prefer: "3.11"}
platforms:
  cpu: {tier: smoked, requirements: requirements/cpu.txt, patches: [accelerate.example], log: docs/logs/example.txt}
  nvidia_24gb: {tier: declared, requirements: requirements/cpu.txt}
config: configs/sft.yaml
stages:
  train:
    commands:
      - environment: recipe
        launch: true
        run: ["${recipe}/train.py", --model, "${model.path}", --data, "${data.train}"]
model: {path: null}
data: {train: null, max_length: 128}
train: {learning_rate: 1e-3, max_steps: 4, micro_batch_size: 3, gradient_accumulation_steps: 5}
parallel: {processes: 2}
presets:
  smoke:
    summary: Small
    platforms: [cpu]
    requires: [bf16]
    model: {path: tiny}
    data: {train: samples/train.jsonl}
  full:
    summary: Large
    platforms: [nvidia_24gb]
    requires: [nf4]
    memory: {device_gib: 22, host_gib: 127, measured: false, source: somebody}
    parallel: {processes: 4}
results:
  - {what: a run, metric: loss, value: 1.5, unit: nats, hardware: a laptop, source: here}
"""
CONFIG = """\
learning_rate: ${train.learning_rate}
batch: ${train.micro_batch_size}
accumulation: ${train.gradient_accumulation_steps}
length: ${data.max_length}
"""
README = """\
# example

By hand, before.

<!-- generated: commands -->
<!-- end -->

<!-- generated: presets -->
<!-- end -->

<!-- generated: defects -->
<!-- end -->

By hand, after.
"""
PATCH = '''\
"""A patch of the tests."""

VERSIONS = ">=1.15,<1.16"
REASON = "something goes wrong"
UPSTREAM = "accelerate/state.py"


def apply() -> None:
    pass
'''


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def add_recipe(root: Path, name: str) -> Path:
    """A recipe without faults, except that its README's generated parts are empty."""
    folder = root / "recipes" / name
    write(folder / "recipe.yaml", RECIPE)
    write(folder / "configs" / "sft.yaml", CONFIG)
    write(folder / "requirements" / "cpu.txt", "torch==2.13.0\n")
    write(folder / "samples" / "train.jsonl", "{}\n")
    write(folder / "train.py", "import torch\n")
    write(folder / "run.sh", "#!/usr/bin/env bash\nexec true\n")
    write(folder / "tests" / "test_example.py", "def test_right() -> None:\n    'accelerate.example'\n")
    write(folder / "README.md", README)
    return folder


def make_project(root: Path) -> Path:
    """The project's code with the recipe `example` and the patch accelerate.example; rules find nothing in these."""
    left_out = shutil.ignore_patterns("__pycache__", "bench")
    for name in ("common", "tools"):
        shutil.copytree(ROOT / name, root / name, ignore=left_out)
    shutil.copyfile(ROOT / "requirements.txt", root / "requirements.txt")
    shutil.copyfile(ROOT / "patches" / "__init__.py", _parent(root / "patches" / "__init__.py"))
    write(root / "patches" / "accelerate" / "__init__.py", "")
    write(root / "patches" / "accelerate" / "example.py", PATCH)
    write(root / "docs" / "logs" / "example.txt", "it ran\n")
    add_recipe(root, "example")
    assert tools(root, "schema").returncode == 0
    assert tools(root, "readme").returncode == 0
    return root


def _parent(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def tools(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m tools ARGUMENTS` in the project at `root`."""
    environment = {**os.environ, "PYTHONPATH": str(root), "COLUMNS": "200"}
    command = [sys.executable, "-m", "tools", *arguments]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=120)
