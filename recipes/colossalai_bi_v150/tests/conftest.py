"""The recipe's tests read one smoke run, made once: `run`, and its training under all plugins: `variants`."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

RECIPE = Path(__file__).resolve().parent.parent
ROOT = RECIPE.parent.parent
RUN_SH = RECIPE / "run.sh"
sys.path[:0] = [str(RECIPE), str(ROOT)]

from common import golden  # noqa: E402 - the path is set above

STEPS = 6
SAVED = 3  # the step from which variants are resumed
THREE_D = {"tp_size": 1, "pp_size": 1, "sp_size": 1, "zero_stage": 0}
# Without them a model as small as this is one chunk, of which every rank keeps the whole
SMALL_CHUNKS = {"min_chunk_size_m": 0.05, "search_range_m": 0.05, "hidden_dim": 64}
# plugin, dtype, and what differs for plugins.NAME
VARIANTS: dict[int, dict[str, tuple[str, str, dict[str, Any]]]] = {
    2: {
        "tp2": ("3d", "float32", {"tp_size": 2}),
        "pp2": ("3d", "float32", {"pp_size": 2}),
        "sp2": ("3d", "float32", {"sp_size": 2}),
        "ddp": ("ddp", "float32", {}),
        "zero1": ("zero", "bfloat16", {"stage": 1}),
        "zero2": ("zero", "bfloat16", {"stage": 2}),
        "gemini": ("gemini", "bfloat16", SMALL_CHUNKS),
        "gemini_gathered": ("gemini", "bfloat16", {}),
    },
    4: {
        "tp2_pp2": ("3d", "float32", {"tp_size": 2, "pp_size": 2}),
        "pp2_zero1": ("3d", "bfloat16", {"pp_size": 2, "zero_stage": 1}),
    },
}
GOLDEN = {2: ("golden_tp2", {"tp_size": 2}), 4: ("golden_pp2_dp2", {"pp_size": 2})}
RESUMED = ("tp2", "pp2", "zero1", "zero2", "gemini", "pp2_zero1")


def run_sh(*arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """`bash run.sh ARGUMENTS`, with its output."""
    command = ["bash", str(RUN_SH), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=900)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a finished smoke run with nothing given. COLOSSALAI_RUN names one that is there already."""
    if given := os.environ.get("COLOSSALAI_RUN"):
        return Path(given)
    output = tmp_path_factory.mktemp("smoke") / "run"
    done = run_sh("--output", output)
    assert done.returncode == 0, done.stdout + done.stderr
    return output


@pytest.fixture(scope="session")
def config(run: Path) -> dict[str, Any]:
    """The configuration of the smoke run."""
    content: dict[str, Any] = yaml.safe_load((run / "train" / "config.yaml").read_text())
    return content


@pytest.fixture(scope="session")
def metrics(run: Path) -> list[dict[str, Any]]:
    return rows(run / "metrics.jsonl")


@pytest.fixture(scope="session")
def evaluation(run: Path) -> dict[str, dict[str, Any]]:
    return {row["metric"]: row for row in json.loads((run / "evaluation.json").read_text())}


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@dataclass(frozen=True)
class Variant:
    """A training of the smoke run's data and weights, without noise."""

    folder: Path
    dtype: str
    data_size: int
    resumed: Path | None
    """The same training, stopped after step SAVED and gone on with in a new model and optimizer."""

    @property
    def metrics(self) -> list[dict[str, Any]]:
        return rows(self.folder / "metrics.jsonl")

    @property
    def facts(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "facts.json").read_text())
        return found


@pytest.fixture(scope="session")
def variants(run: Path, config: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Variant]:
    """Every plugin's training; on two processes through `colossalai run`, on four through torchrun."""
    home = tmp_path_factory.mktemp("variants")
    golden.prepare(home / "golden")
    found = {}
    for processes, chosen in VARIANTS.items():
        name, sizes = GOLDEN[processes]
        golden_variant(home / name, config, home / "golden", sizes, accumulation=8 // processes)
        folders = [home / name]
        found[name] = Variant(home / name, "float32", processes // 2, None)
        for name, (plugin, dtype, sizes) in chosen.items():
            variant = made(home / name, config, plugin, dtype, sizes)
            folders.append(home / name)
            if name in RESUMED:
                folders.append(resumed(home / name))
            shared = variant["plugins"]["3d"]
            data_size = processes // (shared["tp_size"] * shared["pp_size"] * shared["sp_size"])
            found[name] = Variant(home / name, dtype, data_size, folders[-1] if name in RESUMED else None)
        (home / "hosts").write_text("127.0.0.1\n")
        launch(processes, home / "hosts", [*map(str, folders)])
    return found


def made(folder: Path, config: dict[str, Any], plugin: str, dtype: str, sizes: dict[str, Any]) -> dict[str, Any]:
    """Write `folder`/config.yaml."""
    mine = copy.deepcopy(config)
    mine["plugin"] = plugin
    mine["model"] |= {"dtype": dtype, "neftune_noise_alpha": 0}
    mine["plugins"]["3d"] |= THREE_D
    mine["plugins"].get(plugin, {}).update(sizes)
    if plugin == "gemini":  # the same rows at once
        mine["train"]["micro_batch_size"] *= mine["train"].pop("gradient_accumulation_steps")
        mine["train"]["gradient_accumulation_steps"] = 1
    if plugin == "zero":
        mine["plugins"]["3d"]["zero_stage"] = sizes["stage"]
    mine["train"] |= {"max_steps": STEPS, "save_steps": SAVED}
    for key, name in (("metrics", "metrics.jsonl"), ("tensorboard", "tensorboard"), ("checkpoints", "checkpoints")):
        mine[key] = str(folder / name)
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(mine))
    return mine


def golden_variant(
    folder: Path, config: dict[str, Any], golden_folder: Path, sizes: dict[str, int], accumulation: int
) -> None:
    """Write `folder`/config.yaml for the model, data and settings that all recipes share; rows come one by one."""
    mine = made(folder, config, "3d", "float32", sizes)
    settings = golden.read().settings["full"]
    mine["model"]["path"], mine["data"]["path"] = str(golden_folder / "model"), str(golden_folder / "data")
    mine["data"]["shuffle"] = False
    mine["optimizer"] |= {"lr": settings["learning_rate"], **{k: settings[k] for k in ("betas", "eps", "weight_decay")}}
    mine["lr_scheduler"] |= {"name": "constant", "warmup_steps": 0}
    mine["plugins"]["3d"] |= {"max_norm": settings["max_grad_norm"], "microbatch_size": 1}
    mine["train"] |= {"max_steps": golden.STEPS, "save_steps": golden.STEPS, "micro_batch_size": 1}
    mine["train"]["gradient_accumulation_steps"] = accumulation
    (folder / "config.yaml").write_text(yaml.safe_dump(mine))


def resumed(folder: Path) -> Path:
    """The configuration of the training that goes on from `folder`'s first checkpoint."""
    mine = folder.with_name(folder.name + "-resumed")
    mine.mkdir()
    text = (folder / "config.yaml").read_text().replace(f"{folder}/", f"{mine}/")
    (mine / "config.yaml").write_text(text)
    return mine


def launch(processes: int, hosts: Path, arguments: list[str]) -> None:
    script = str(RECIPE / "tests" / "variants.py")
    if processes == 2:
        words = [str(RECIPE / "launch.py"), "run", "--hostfile", str(hosts), "--nproc_per_node", "2"]
        words += ["--master_port", free_port(), script]
    else:
        words = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", script]
    variables = {**os.environ, "PYTHONPATH": f"{ROOT}:{RECIPE}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *words, *arguments], capture_output=True, text=True, env=variables, cwd=ROOT, timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr


def free_port() -> str:
    import socket

    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return str(bound.getsockname()[1])
