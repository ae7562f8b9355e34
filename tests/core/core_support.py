"""A small recipe whose stages are plain Python, and environments that are this one: a real run without a framework."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from common import environment, plan, recipe

ROOT = Path(__file__).resolve().parents[2]

RECIPE = """\
summary: A recipe of the tests
maintainers: [somebody]
reproduces: {name: an original, source: somewhere, corrected: []}
framework: torch
launcher: torchrun
python: {min: "3.10", max: "3.13", prefer: "3.12"}
platforms:
  cpu: {tier: declared, requirements: requirements.txt}
  nvidia_24gb: {tier: declared, requirements: requirements.txt}
  nvidia_80gb: {tier: declared, requirements: requirements.txt}
config: config.yaml
stages:
  weights:
    commands:
      - {environment: light, run: [python, "${recipe}/stage.py", weights, "${model.path}", "${stage}",
              [--tokenizer, "${model.tokenizer}"]]}
  data:
    commands:
      - environment: light
        run: [python, "${recipe}/stage.py", data, "${data.train}", "${stage}", --length, "${data.max_length}",
              [--eval-input, "${data.eval}"], [--eval-fraction, "${data.eval_fraction}"]]
  train:
    commands:
      - {environment: recipe, launch: true, run: ["${recipe}/train.py", --config, "${run}/train/config.yaml"]}
  export:
    commands:
      - {environment: recipe, run: [python, "${recipe}/stage.py", export, "${run}/train", "${stage}"]}
    publishes: [adapter, model]
model: {path: null, tokenizer: null}
data: {train: null, eval: null, eval_fraction: 0.05, max_length: 128}
train: {learning_rate: 1e-3, max_steps: null, num_train_epochs: 1, micro_batch_size: 3,
        gradient_accumulation_steps: 5, seed: 42}
parallel: {processes: 4}
presets:
  smoke:
    summary: small
    platforms: [cpu, nvidia_80gb]
    model: {path: tiny}
    data: {train: samples/train.jsonl, eval: samples/eval.jsonl, eval_fraction: null}
    train: {max_steps: 4}
    parallel: {processes: 2}
  full:
    summary: large
    platforms: [nvidia_24gb]
    requires: [bf16, nf4]
"""

CONFIG = """\
optim: adamw_torch
sft:
  output_dir: ${run}/checkpoints
  learning_rate: ${train.learning_rate}
  max_steps: ${steps}
  num_train_epochs: ${train.num_train_epochs}
  rows: ${train.micro_batch_size}
  accumulation: ${train.gradient_accumulation_steps}
  seed: ${train.seed}
"""

# Writes what it was asked for, after anything that the file `before` beside it asks for.
STAGE = """\
import pathlib, sys
here = pathlib.Path(__file__).parent
name, source, stage = sys.argv[1:4]
if (here / f"before_{name}.py").exists():
    exec((here / f"before_{name}.py").read_text())
out = pathlib.Path(stage)
(out / "written").write_text(" ".join(sys.argv[1:]))
if name == "export":
    (out / "adapter").mkdir()
    (out / "adapter" / "weights").write_text("adapter")
    (out / "model").mkdir()
"""

TRAIN = """\
import pathlib, sys
with open(pathlib.Path(sys.argv[2]).parent.parent / "trained", "a") as file:
    file.write("once\\n")
"""

# In place of torchrun's module: starts the script once, so that nothing needs torch.
LAUNCH = """\
import os, sys
script = next(index for index, word in enumerate(sys.argv) if word.endswith(".py") and index)
os.execv(sys.executable, [sys.executable, *sys.argv[script:]])
"""


def write_recipe(folder: Path) -> Path:
    """The recipe of these tests in `folder`."""
    (folder / "samples").mkdir(parents=True)
    for name, content in (
        ("recipe.yaml", RECIPE),
        ("config.yaml", CONFIG),
        ("stage.py", STAGE),
        ("train.py", TRAIN),
        ("requirements.txt", "nothing==1.0\n"),
        (
            "samples/train.jsonl",
            '{"messages": [{"role": "user", "content": "A?"}, {"role": "assistant", "content": "A."}]}\n',
        ),
        (
            "samples/eval.jsonl",
            '{"messages": [{"role": "user", "content": "B?"}, {"role": "assistant", "content": "B."}]}\n',
        ),
    ):
        (folder / name).write_text(content, encoding="utf-8")
    return folder


def edit(file: Path, old: str, new: str) -> int:
    """Replace `old` in `file`, once; the line on which it stood."""
    text = file.read_text(encoding="utf-8")
    assert text.count(old) == 1, (old, text.count(old))
    file.write_text(text.replace(old, new), encoding="utf-8")
    return text[: text.index(old)].count("\n") + 1


def fake_environments(folder: Path, recipe_folder: Path) -> Path:
    """Environments that are complete, and whose interpreter is the one that runs the tests."""
    modules = folder / "modules" / "torch" / "distributed"
    modules.mkdir(parents=True)
    for package in (modules.parent, modules):
        (package / "__init__.py").touch()
    (modules / "run.py").write_text(LAUNCH, encoding="utf-8")
    os.environ["LLAMA3_RECIPES_ENVS"] = str(folder)  # undone by the fixture
    read, _ = recipe.read(recipe_folder)
    for spec in (environment.light_spec(), plan.environment_spec(recipe_folder, read, "cpu")):
        wrapper(spec.python(), f'PYTHONPATH="{modules.parents[1]}:$PYTHONPATH" exec "{sys.executable}" "$@"')
        state = {"digest": spec.digest(), "python": "3"}
        (spec.folder() / environment.COMPLETE).write_text(json.dumps(state), encoding="utf-8")
    (environment.light_spec().folder() / "source.txt").write_bytes((ROOT / "requirements.txt").read_bytes())
    return folder


def wrapper(file: Path, body: str) -> Path:
    """An executable shell script."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    file.chmod(0o755)
    return file


def command(recipe_folder: Path, *arguments: object) -> list[str]:
    return [sys.executable, "-m", "common.run", str(recipe_folder), *map(str, arguments)]


def run(recipe_folder: Path, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """What run.sh starts, with the environments of the calling test."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
    return subprocess.run(
        command(recipe_folder, *arguments), capture_output=True, text=True, timeout=60, env=variables, **options
    )


def tree(folder: Path) -> dict[str, str]:
    """Every file under `folder` with its content."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_text(encoding="utf-8", errors="replace") for path in files}
