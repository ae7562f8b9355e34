"""The recipe's tests read one smoke run, made once: `run`, and its training under all plugins: `variants`."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from recipe_runs import RunSh, free_port

from common import golden
from common.launchers import Cluster, launch

RECIPE = Path(__file__).resolve().parent.parent
ROOT = RECIPE.parent.parent
sys.path.insert(0, str(RECIPE))
run_sh = RunSh(RECIPE)

STEPS = 6
SAVED = 3  # the step from which variants are resumed
# Without them a model as small as this is one chunk, of which every rank keeps the whole
SMALL_CHUNKS = {"plugins.gemini.min_chunk_size_m": 0.05, "plugins.gemini.search_range_m": 0.05}
SMALL_CHUNKS |= {"plugins.gemini.hidden_dim": 64}
AT_ONCE = {"train.micro_batch_size": 4, "train.gradient_accumulation_steps": 1}
# plugin, dtype, and what differs from the smoke run on one rank
VARIANTS: dict[int, dict[str, tuple[str, str, dict[str, Any]]]] = {
    2: {
        "tp2": ("3d", "float32", {"plugins.3d.tp_size": 2}),
        "pp2": ("3d", "float32", {"plugins.3d.pp_size": 2, "model.recomputed_layers": [2, 1]}),
        "sp2": ("3d", "float32", {"plugins.3d.sp_size": 2}),
        "ddp": ("ddp", "float32", {}),
        "zero1": ("zero", "bfloat16", {"plugins.zero.stage": 1, "plugins.3d.zero_stage": 1}),
        "zero2": ("zero", "bfloat16", {"plugins.zero.stage": 2, "plugins.3d.zero_stage": 2}),
        "gemini": ("gemini", "bfloat16", SMALL_CHUNKS),
        "gemini_gathered": ("gemini", "bfloat16", {}),
        "gemini_at_once": ("gemini", "bfloat16", {**SMALL_CHUNKS, **AT_ONCE}),
    },
    4: {
        "tp2_pp2": ("3d", "float32", {"plugins.3d.tp_size": 2, "plugins.3d.pp_size": 2}),
        "pp2_zero1": ("3d", "bfloat16", {"plugins.3d.pp_size": 2, "plugins.3d.zero_stage": 1}),
    },
}
GOLDEN: dict[int, tuple[str, dict[str, Any]]] = {
    2: ("golden_tp2", {"plugins.3d.tp_size": 2}),
    4: ("golden_pp2_dp2", {"plugins.3d.pp_size": 2}),
}
RESUMED = ("tp2", "pp2", "zero1", "zero2", "gemini", "pp2_zero1")


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a finished smoke run with nothing given, killed three times on its way."""
    output = tmp_path_factory.mktemp("smoke") / "run"
    moments: list[Callable[[], bool]] = [
        lambda: len(rows(output / "metrics.jsonl")) >= 7,  # past the checkpoint of step 5
        lambda: (output / "checkpoints" / "step-10.partial").exists(),  # while it is written
        lambda: (output / "export.partial").exists(),
    ]
    return run_sh.smoke(output, killed_at=moments)


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
    """The whole lines of metrics.jsonl, also while it is written."""
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


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
    """Every plugin's training, and the smoke run's once more without a break."""
    home = tmp_path_factory.mktemp("variants")
    golden.prepare(home / "golden")
    found = {"unbroken": Variant(home / "unbroken", "float32", 1, None)}
    write(home / "unbroken", copy.deepcopy(config))
    for processes, chosen in VARIANTS.items():
        name, changes = GOLDEN[processes]
        golden_variant(home / name, config, home / "golden", changes, accumulation=8 // processes)
        folders = [home / "unbroken", home / name] if processes == 2 else [home / name]
        found[name] = Variant(home / name, "float32", processes // 2, None)
        for name, (plugin, dtype, changes) in chosen.items():
            variant = made(home / name, config, plugin, dtype, changes)
            folders.append(home / name)
            if name in RESUMED:
                folders.append(resumed(home / name))
            shared = variant["plugins"]["3d"]
            data_size = processes // (shared["tp_size"] * shared["pp_size"] * shared["sp_size"])
            found[name] = Variant(home / name, dtype, data_size, folders[-1] if name in RESUMED else None)
        run_variants(processes, home, [*map(str, folders)])
    return found


def made(folder: Path, config: dict[str, Any], plugin: str, dtype: str, changes: dict[str, Any]) -> dict[str, Any]:
    """The configuration `folder`/config.yaml, which is written."""
    mine = copy.deepcopy(config)
    mine["plugin"] = plugin
    mine["model"] |= {"dtype": dtype, "neftune_noise_alpha": 0}
    mine["plugins"]["3d"] |= {"tp_size": 1, "pp_size": 1, "sp_size": 1, "zero_stage": 0}
    mine["train"] |= {"max_steps": STEPS, "save_steps": SAVED}
    for name, value in changes.items():
        *sections, key = name.split(".")
        section = mine
        for each in sections:
            section = section[each]
        section[key] = value
    write(folder, mine)
    return mine


def write(folder: Path, config: dict[str, Any]) -> None:
    """`folder`/config.yaml, of a training that writes to `folder`."""
    for key, name in (("metrics", "metrics.jsonl"), ("tensorboard", "tensorboard"), ("checkpoints", "checkpoints")):
        config[key] = str(folder / name)
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def golden_variant(
    folder: Path, config: dict[str, Any], golden_folder: Path, changes: dict[str, Any], accumulation: int
) -> None:
    """Write `folder`/config.yaml for the model, data and settings that all recipes share; rows come one by one."""
    mine = made(folder, config, "3d", "float32", changes)
    settings = golden.read().settings["full"]
    mine["model"]["path"], mine["data"]["path"] = str(golden_folder / "model"), str(golden_folder / "data")
    mine["data"]["shuffle"] = False
    mine["optimizer"] |= {"lr": settings["learning_rate"], **{k: settings[k] for k in ("betas", "eps", "weight_decay")}}
    mine["lr_scheduler"] |= {"name": "constant", "warmup_steps": 0}
    mine["plugins"]["3d"] |= {"max_norm": settings["max_grad_norm"], "microbatch_size": 1}
    mine["train"] |= {"max_steps": golden.STEPS, "save_steps": golden.STEPS, "micro_batch_size": 1}
    mine["train"]["gradient_accumulation_steps"] = accumulation
    write(folder, mine)


def resumed(folder: Path) -> Path:
    """The configuration of the training that goes on from `folder`'s first checkpoint."""
    mine = folder.with_name(folder.name + "-resumed")
    write(mine, yaml.safe_load((folder / "config.yaml").read_text()))
    return mine


def run_variants(processes: int, home: Path, arguments: list[str]) -> None:
    """tests/variants.py on this machine: by torchrun as two nodes of one process, or four by `colossalai run`."""
    script = str(RECIPE / "tests" / "variants.py")
    port = str(free_port())
    if processes == 2:
        nodes = [Cluster(1, 2, rank, "127.0.0.1", int(port)) for rank in (0, 1)]
        launchers = [launch("torchrun", sys.executable, node, home) for node in nodes]
    else:
        (home / "hosts").write_text("127.0.0.1\n")
        options = ["--hostfile", str(home / "hosts"), "--nproc_per_node", str(processes), "--master_port", port]
        launchers = [[sys.executable, str(RECIPE / "launch.py"), "run", *options]]
    variables = {**os.environ, "PYTHONPATH": f"{ROOT}:{RECIPE}", "OMP_NUM_THREADS": "1"}
    with (home / f"{processes}.log").open("w+") as log:
        started = [
            subprocess.Popen([*words, script, *arguments], stdout=log, stderr=log, env=variables, cwd=ROOT)
            for words in launchers
        ]
        try:
            status = [process.wait(timeout=900) for process in started]
        finally:  # one node does not wait for another that is gone
            for process in started:
                process.kill()
        log.seek(0)
        assert not any(status), log.read()
