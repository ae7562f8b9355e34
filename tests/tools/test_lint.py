"""`tools lint`: every rule finds a violation that was planted, and nothing where there is none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from example_project import add_recipe, tools, write

from tools.lint.rules import RULES


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {file}"
    file.write_text(text.replace(old, new), encoding="utf-8")


def append(file: Path, text: str) -> None:
    file.write_text(file.read_text(encoding="utf-8") + text, encoding="utf-8")


def recipe(old: str, new: str) -> Callable[[Path], Path]:
    """A violation in the recipe.yaml of a recipe of its own."""

    def plant(folder: Path) -> Path:
        edit(folder / "recipe.yaml", old, new)
        return folder / "recipe.yaml"

    return plant


def config(old: str, new: str, where: str = "recipe.yaml") -> Callable[[Path], Path]:
    """A violation in the framework's configuration, and the file that is blamed."""

    def plant(folder: Path) -> Path:
        edit(folder / "configs" / "sft.yaml", old, new)
        return folder / where

    return plant


def code(text: str) -> Callable[[Path], Path]:
    """A violation in a Python file of the recipe."""

    def plant(folder: Path) -> Path:
        write(folder / "planted.py", text)
        return folder / "planted.py"

    return plant


def common(text: str) -> Callable[[Path], Path]:
    """A violation in a module of common, of its own for each test."""

    def plant(folder: Path) -> Path:
        file = folder.parents[1] / "common" / f"{folder.name}.py"
        write(file, text)
        return file

    return plant


def patch(old: str, new: str) -> Callable[[Path], Path]:
    def plant(folder: Path) -> Path:
        patches = folder.parents[1] / "patches" / "accelerate"
        file = patches / f"{folder.name}.py"
        shutil.copyfile(patches / "example.py", file)
        append(folder / "tests" / "test_example.py", f"    'accelerate.{folder.name}'\n")
        edit(file, old, new)
        return file

    return plant


def platform(old: str, new: str) -> Callable[[Path], Path]:
    def plant(folder: Path) -> Path:
        platforms = folder.parents[1] / "common" / "platforms"
        file = platforms / f"{folder.name}.yaml"
        shutil.copyfile(platforms / "nvidia_24gb.yaml", file)
        edit(file, old, new)
        return file

    return plant


def without(path: str, where: str) -> Callable[[Path], Path]:
    """A file that is missing, and the file that is blamed."""

    def plant(folder: Path) -> Path:
        (folder / path).unlink()
        return folder / where

    return plant


def run_script(folder: Path) -> Path:
    append(folder / "run.sh", "export MINE=1\n")
    return folder / "run.sh"


def untested_patch(folder: Path) -> Path:
    file = patch("something goes wrong", "something else")(folder)
    edit(folder / "tests" / "test_example.py", f"accelerate.{folder.name}", "nothing")
    return file


def readme(old: str, new: str) -> Callable[[Path], Path]:
    def plant(folder: Path) -> Path:
        text = (folder.parent / "example" / "README.md").read_text(encoding="utf-8")
        write(folder / "README.md", text.replace("recipes/example/", f"recipes/{folder.name}/"))
        edit(folder / "README.md", old, new)
        return folder / "README.md"

    return plant


def platform_twice(folder: Path) -> Path:
    """A platform that does not exist beside the one that is meant."""
    line = "  nvidia_24gb: {tier: declared, requirements: requirements/cpu.txt}\n"
    return recipe(line, line + line.replace("24gb", "24"))(folder)


DEFECT_TEST = "tests/test_example.py::test_right"
# rule, what was done, words of the finding, words of the line that is named (None: a file, not a line)
PLANTED: list[tuple[str, Callable[[Path], Path], str, str | None]] = [
    ("L001", recipe("max_length: 128", "max_lenght: 128"), "did you mean 'max_length'?", "max_lenght"),
    ("L001", recipe("summary: Small", "sumary: Small"), "unknown key presets.smoke.sumary", "sumary"),
    ("L001", recipe("launcher: torchrun\n", ""), "the key launcher is missing", None),
    ("L001", recipe("framework: torch", "framework: torch\nframework: torch"), "stands twice", "framework"),
    ("L001", recipe("processes: 4", "processes: four"), "presets.full.parallel.processes", "four"),
    ("L001", recipe("presets:", "presets: ["), "is not YAML", "summary: Small"),
    ("L001", platform("vendor: NVIDIA", "vender: NVIDIA"), "did you mean 'vendor'?", "vender"),
    ("L002", code("import recipes.example.train\n"), "recipes.example.train", "import"),
    ("L002", code("def f():\n    from recipes import example\n"), "recipes", "from recipes"),
    ("L002", code("import importlib\nimportlib.import_module('recipes.example')\n"), "recipes.example", "'recipes"),
    ("L002", common("import torch.nn as nn\n"), "torch.nn", "import"),
    ("L002", common("try:\n    from mindspore import nn\nexcept ImportError:\n    pass\n"), "mindspore", "from"),
    ("L002", common("from tools import listing\n"), "tools", "from"),
    ("L002", common("from common.frameworks.mindformers import session\n"), "common.frameworks.mindformers", "from"),
    ("L003", common("def f(x):\n    if x == 'npu':\n        return 1\n"), "'npu'", "if"),
    ("L003", common("def f(x):\n    return x.device.type in ('cuda', 'other')\n"), "'cuda'", "return"),
    ("L003", common("def f(x):\n    if x.startswith('nvidia_'):\n        return 1\n"), "'nvidia_'", "if"),
    ("L003", common("def f(x):\n    return [y for y in x if y['vendor'] != 'Iluvatar CoreX']\n"), "Iluvatar", "return"),
    ("L003", common("def f(x):\n    return [y for y in x if y.startswith('xpu')]\n"), "'xpu'", "return"),
    ("L003", common("def f(x):\n    match x:\n        case 'ascend':\n            return 1\n"), "'ascend'", "case"),
    ("L004", config("${train.learning_rate}", "1e-4", "configs/sft.yaml"), "recipe.yaml states train.learn", "1e-4"),
    ("L004", config("${train.micro_batch_size}", "${train.micro_batch}"), "${train.micro_batch} names nothing", None),
    ("L004", config("accumulation: ${train.gradient_accumulation_steps}\n", ""), "refers to ${train.grad", None),
    ("L005", recipe(DEFECT_TEST, "tests/test_gone.py::test_right"), "no file tests/test_gone.py", "test_gone"),
    ("L005", recipe(DEFECT_TEST, "tests/test_example.py::test_wrong"), "has no test_wrong", "test_wrong"),
    ("L005", recipe(DEFECT_TEST, "tests/test_example.py"), "has no test named", "test_example"),
    ("L006", run_script, "differs from the other recipes' run.sh", "MINE"),
    ("L006", without("run.sh", "run.sh"), "is missing", None),
    ("L007", readme("3 × 5 × 4 = 60", "3 × 5 × 4 = 61"), "out of date", "61"),
    ("L007", readme("<!-- generated: commands -->", "<!-- generated: comands -->"), "you mean 'commands'", "comands"),
    ("L007", readme("By hand, after.\n", "<!-- generated: results -->\n"), "has no <!-- end -->", "results"),
    ("L007", readme("By hand, after.", "<!-- end -->"), "ends nothing", "end"),
    ("L008", patch('REASON = "something goes wrong"\n', ""), "states no REASON", None),
    ("L008", patch('"accelerate/state.py"', '" "'), "states no UPSTREAM", None),
    ("L008", patch(">=1.15,<1.16", ">=1.15"), "no upper end", None),
    ("L008", patch(">=1.15,<1.16", "1.15 or so"), "is no version range", None),
    ("L008", patch("def apply()", "def correct()"), "no function apply()", None),
    ("L008", untested_patch, "no test names accelerate.", None),
    ("L009", code("import torch\ntorch.load('x')\n"), "without weights_only", "load"),
    ("L009", code("from torch import load as read\nread('x', weights_only=False)\n"), "without weights_only", "read("),
    ("L009", code("import pickle as p\np.loads(b'')\n"), "calls pickle.loads", "loads"),
    ("L009", code("import yaml\nyaml.load('', yaml.Loader)\n"), "not derived from SafeLoader", "load"),
    ("L009", code("import yaml\nyaml.unsafe_load('')\n"), "calls yaml.unsafe_load", "unsafe"),
    ("L009", code("f(trust_remote_code=True)\n"), "passes trust_remote_code", "trust"),
    ("L009", code("import subprocess\nsubprocess.run('ls', shell=True)\n"), "passes shell", "shell"),
    ("L009", code("import numpy as np\nnp.load('x', allow_pickle=True)\n"), "passes allow_pickle", "allow"),
    ("L010", code("x = 1\n" * 401), "has 401 lines", "x = 1"),
    ("L011", recipe(", log: docs/logs/example.txt", ""), "is smoked and names no log", "cpu"),
    ("L011", recipe("docs/logs/example.txt", "docs/logs/gone.txt"), "no file docs/logs/gone.txt", "cpu"),
    ("L011", platform("monitor:", "tier: verified\nmonitor:"), "no recipe's log shows it", "tier"),
    ("L012", without("train.py", "recipe.yaml"), "no file train.py", "train:"),
    ("L012", without("configs/sft.yaml", "recipe.yaml"), "no file configs/sft.yaml", "config:"),
    ("L012", recipe("cpu: {tier", "cpu: {config: configs/gone.yaml, tier"), "configs/gone.yaml", "cpu"),
    ("L012", platform_twice, "no platform nvidia_24", "nvidia_24:"),
    ("L012", recipe("accelerate.example", "accelerate.gone"), "no patch accelerate.gone", "cpu"),
    ("L012", recipe("requires: [nf4]", "requires: [fp4]"), "needs fp4, which nvidia_24gb has not", "full"),
    ("L012", recipe("launcher: torchrun", "launcher: msrun"), "has no launcher msrun", "cpu"),
    ("L013", platform(r"'(?P<mib>\d+)'", r"'(\d+)'"), "no group mib", "pattern"),
    ("L013", platform(r"'(\d+\.\d+)'", r"'(\d+'"), "no regular expression", "pattern"),
]  # fmt: skip


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory, pristine: Path) -> tuple[list[Path], list[dict[str, object]]]:
    """Every violation in one copy of the project, each with a recipe of its own, and what lint says of it."""
    root = Path(shutil.copytree(pristine, tmp_path_factory.mktemp("planted") / "project"))
    files = [plant(add_recipe(root, f"case_{number}")) for number, (_, plant, _, _) in enumerate(PLANTED)]
    ran = tools(root, "lint", "--json")
    assert ran.returncode == 1, ran.stderr
    return files, json.loads(ran.stdout)


@pytest.mark.parametrize("number", range(len(PLANTED)), ids=[f"{case[0]}-{case[2]}" for case in PLANTED])
def test_rule_finds_what_was_planted(number: int, planted: tuple[list[Path], list[dict[str, object]]]) -> None:
    rule, _, words, line = PLANTED[number]
    files, findings = planted
    name = str(files[number]).split("/project/")[1]
    here = [each for each in findings if each["file"] == name and each["rule"] == rule]
    matching = [each for each in here if words in f"{each['problem']} {each['hint']}"]
    assert matching, here
    if line is not None:
        number_of_line = matching[0]["line"]
        assert isinstance(number_of_line, int)
        assert line in files[number].read_text(encoding="utf-8").splitlines()[number_of_line - 1]


def test_every_rule_has_a_violation_that_is_planted() -> None:
    assert {case[0] for case in PLANTED} == {rule.id for rule in RULES}


RIGHT = '''\
"""What rules must not find."""
import pickletools
import subprocess
from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    import torch


class Loader(yaml.SafeLoader):
    pass


def f(path: str, device: str) -> None:
    import torch

    torch.load(path, weights_only=True)
    yaml.load(path, Loader)
    yaml.load(path, Loader=yaml.CSafeLoader)
    yaml.safe_load(path)
    pickletools.dis(b"N.")
    subprocess.run(["ls", path], shell=False)
    if device == "device":
        print("cuda", "npu")
    if device == "cpu":  # allow L003: the processor's own name, read from the kernel
        print(device)
'''


def test_nothing_is_found_in_what_is_right(project: Path) -> None:
    write(project / "common" / "right.py", RIGHT)
    write(project / "common" / "frameworks" / "mindformers" / "right.py", "import mindspore\n")
    places = ("recipes", "patches", "docs", "common/platforms", "common/right.py", "common/frameworks")
    ran = tools(project, "lint", *places)
    assert (ran.returncode, ran.stdout) == (0, "")


def test_an_exception_needs_a_reason(project: Path) -> None:
    write(project / "common" / "wrong.py", "def f(x):\n    if x == 'npu':  # allow L003:\n        return 1\n")
    assert tools(project, "lint", "--rule", "3", "common/wrong.py").returncode == 1


def test_a_finding_names_file_line_rule_and_remedy(project: Path) -> None:
    edit(project / "recipes" / "example" / "recipe.yaml", "max_length: 128", "max_lenght: 128")
    ran = tools(project, "lint", "--rule", "L001")
    assert ran.returncode == 1
    assert ran.stdout == (
        "recipes/example/recipe.yaml:22: L001 unknown key data.max_lenght\n    did you mean 'max_length'?\n"
    )


def test_paths_and_rules_limit_what_is_reported(project: Path) -> None:
    write(project / "recipes" / "example" / "a.py", "eval('1')\n")
    write(project / "patches" / "accelerate" / "b.py", "eval('1')\n")
    both = tools(project, "lint", "--rule", "9", "--rule", "L008", "patches")
    assert {line.split(":")[0] for line in both.stdout.splitlines() if line[0] != " "} == {"patches/accelerate/b.py"}
    assert {"L008", "L009"} <= set(both.stdout.split())
    assert "L008" not in tools(project, "lint", "--rule", "9").stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rule", "L999"], "--rule names no rule"),
        (["gone.py"], "there is no such file or folder"),
        (["/"], "is outside of the project"),
        (["--fixx"], "--fixx"),
    ],
)
def test_a_wrong_call_ends_in_status_2(pristine: Path, arguments: list[str], words: str) -> None:
    ran = tools(pristine, "lint", *arguments)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert words in ran.stderr
    assert "Traceback" not in ran.stderr


def test_python_that_cannot_be_parsed_is_named(project: Path) -> None:
    write(project / "common" / "broken.py", "x = (\n")
    ran = tools(project, "lint")
    assert ran.returncode == 2
    assert "common/broken.py:1: is not Python" in ran.stderr
