"""The same run for a scheduler: a Slurm script that Slurm runs, a TrainJob that Kubeflow's own models accept."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from plan_support import RECIPE, ROOT, plan

from common import recipe
from common.plan import environment_spec
from common.request import Request
from tools.planning import answer, question, schedulers

DAEMONS = ("slurmctld", "slurmd", "sbatch")
SECONDS = 120


def free_port(count: int) -> int:
    """The first of `count` ports in a row that nobody listens at."""
    for port in range(17000, 30000, count):
        with contextlib.ExitStack() as stack:
            try:
                for number in range(port, port + count):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", number))
            except OSError:
                continue
        return port
    raise AssertionError("no free ports")


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A cluster of two nodes, each with eight devices, on this machine: the variables that name it."""
    if lacking := [name for name in DAEMONS if shutil.which(name) is None]:
        pytest.skip(f"no {', '.join(lacking)}: install slurm-wlm")
    if os.geteuid() != 0:
        pytest.skip("Slurm's daemons are started as root only")
    folder = tmp_path_factory.mktemp("slurm")
    (folder / "state").mkdir()
    for number in range(8):
        (folder / f"device{number}").touch()
    port, host = free_port(3), socket.gethostname()
    (folder / "gres.conf").write_text(f"NodeName=n[1-2] Name=gpu File={folder}/device[0-7]\n")
    (folder / "slurm.conf").write_text(
        f"""ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
AuthType=auth/none
CredType=cred/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SlurmdParameters=config_overrides
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdPidFile={folder}/%n.pid
SlurmdLogFile={folder}/%n.log
SlurmdSpoolDir={folder}/spool-%n
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
GresTypes=gpu
NodeName=n[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{port + 1}-{port + 2}] CPUs=64 RealMemory=500000 Gres=gpu:8
PartitionName=all Nodes=n[1-2] Default=YES State=UP
"""
    )
    variables = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    try:
        for daemon in (["slurmctld", "-i"], ["slurmd", "-N", "n1"], ["slurmd", "-N", "n2"]):
            started = subprocess.run(daemon, env=variables, capture_output=True, text=True)
            if started.returncode:
                pytest.skip(f"{daemon[0]} does not start on this machine: {started.stderr.strip()}")
        if not come_up(variables):
            pytest.skip(f"Slurm's nodes do not come up on this machine: {(folder / 'n1.log').read_text()[-300:]}")
        yield variables
    finally:
        for file in folder.glob("*.pid"):
            with contextlib.suppress(ProcessLookupError, ValueError):
                os.kill(int(file.read_text()), signal.SIGTERM)


def idle_nodes(variables: dict[str, str]) -> int:
    ran = subprocess.run(["sinfo", "-N", "-h", "-o", "%T"], env=variables, capture_output=True, text=True)
    return ran.stdout.split().count("idle")


def come_up(variables: dict[str, str]) -> bool:
    deadline = time.monotonic() + SECONDS
    while idle_nodes(variables) != 2:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def test_slurm_runs_the_recipe_on_two_nodes(slurm: dict[str, str], tmp_path: Path) -> None:
    """The whole smoke preset, a process on each of two nodes, as sbatch takes it from standard input."""
    folder = recipe.find(RECIPE)
    if not environment_spec(folder, recipe.read(folder)[0], "cpu").complete():
        pytest.skip("the recipe's environment is not there: run recipes/fsdp_qlora_70b once")
    run = tmp_path / "run"
    script = plan(
        RECIPE, "--preset", "smoke", "--nnodes", 2, "--devices", 1, "--set", "train.max_steps=2",
        "--output", run, "--slurm",
    )  # fmt: skip
    assert script.returncode == 0, script.stderr
    ran = subprocess.run(
        ["sbatch", "--wait"], input=script.stdout, env=slurm, capture_output=True, text=True, cwd=tmp_path, timeout=550
    )
    logs = "\n".join(file.read_text() for file in tmp_path.glob("*.log"))
    assert ran.returncode == 0, ran.stderr + logs
    report = json.loads((run / "report.json").read_text())
    assert report["finished"] is True
    commands = [(run / "logs" / name).read_text().splitlines()[0] for name in ("train.log", "train-node1.log")]
    assert [f"--node-rank={rank}" in command for rank, command in enumerate(commands)] == [True, True]
    assert all("--nnodes=2" in command for command in commands)


def test_slurm_takes_the_devices_memory_and_time_that_are_planned(slurm: dict[str, str], tmp_path: Path) -> None:
    script = plan(RECIPE, "--nnodes", 2, "--rows", 5000, "--data", "organization/data", "--slurm").stdout
    ran = subprocess.run(
        ["sbatch", "--parsable", "--hold"], input=script, env=slurm, capture_output=True, text=True, cwd=tmp_path
    )
    assert ran.returncode == 0, ran.stderr
    job = ran.stdout.strip()
    shown = subprocess.run(["scontrol", "show", "job", job], env=slurm, capture_output=True, text=True).stdout
    subprocess.run(["scancel", job], env=slurm, check=True)
    assert "NumNodes=2" in shown
    assert "TresPerNode=gres:gpu:4" in shown
    assert "TimeLimit=" in shown and "UNLIMITED" not in shown
    assert "MinMemoryNode=" in shown


def test_slurm_refuses_more_devices_than_a_node_has(slurm: dict[str, str], tmp_path: Path) -> None:
    script = plan(RECIPE, "--devices", 9, "--slurm").stdout
    ran = subprocess.run(["sbatch"], input=script, env=slurm, capture_output=True, text=True, cwd=tmp_path)
    assert ran.returncode != 0


def test_the_hosts_memory_is_the_larger_of_estimate_and_claim() -> None:
    """70B with offload: 51 GiB by the estimate, 127 by the upstream's README; in bf16 the estimate."""
    assert "#SBATCH --mem=127G" in plan(RECIPE, "--slurm").stdout
    said = answer.answer(question.ask(Request(recipe.find(RECIPE), "full", assignments=("model.quantized=false",))))
    assert said["host"]["peak"] > 127
    script = plan(RECIPE, "--set", "model.quantized=false", "--slurm").stdout
    assert f"#SBATCH --mem={math.ceil(said['host']['peak'] * schedulers.MORE)}G" in script


def test_the_script_is_bash_and_keeps_words_together() -> None:
    script = plan(
        RECIPE, "--set", "data.system=It's a $HOME `x` \"y\"", "--data", "/a b/c.jsonl", "--slurm"
    ).stdout  # fmt: skip
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    [line] = [line for line in script.splitlines() if line.startswith("srun ")]
    inner = shlex.split(shlex.split(line)[-1])
    assert 'data.system=It\'s a $HOME `x` "y"' in inner
    assert inner[inner.index("--data") + 1] == "/a b/c.jsonl"


def test_a_trainjob_is_what_kubeflow_takes() -> None:
    """Every key that is written is one that the published model knows: nothing is lost on the way through it."""
    models = pytest.importorskip("kubeflow_trainer_api.models", reason="pip install kubeflow-trainer-api")
    text = plan(RECIPE, "--nnodes", 2, "--image", "registry/image:1", "--volume", "claim", "--kubernetes").stdout
    job = yaml.safe_load(text)
    read = models.TrainerV1alpha1TrainJob.from_dict(job)
    assert read is not None
    assert read.to_dict() == job
    trainer = job["spec"]["trainer"]
    assert (trainer["numNodes"], trainer["numProcPerNode"], trainer["image"]) == (2, 4, "registry/image:1")
    assert trainer["resourcesPerNode"]["limits"]["nvidia.com/gpu"] == 4
    words = shlex.split(trainer["args"][0])
    assert words[2] == f"/workspace/recipes/{RECIPE}/run.sh"
    assert words[words.index("--node-rank") + 1] == "$PET_NODE_RANK"


def test_boards_are_counted_where_the_plugin_counts_boards() -> None:
    """Of a platform with two devices a board, eight boards are asked for where sixteen processes run."""
    asked = question.ask(Request(recipe.find(RECIPE), "full", nproc_per_node=16))
    found = answer.answer(asked)
    there = dataclasses.replace(asked, plan=dataclasses.replace(asked.plan, platform_id="iluvatar_bi_v150"))
    for question_, name, count in ((asked, "nvidia.com/gpu", 16), (there, "iluvatar.com/gpu", 8)):
        job = yaml.safe_load(schedulers.kubernetes(question_, found, "image", "claim"))
        assert job["spec"]["trainer"]["resourcesPerNode"]["limits"][name] == count


def test_the_options_are_those_of_run_sh() -> None:
    """The script's call, with --dry-run, is understood by run.sh itself."""
    script = plan(RECIPE, "--preset", "smoke", "--slurm").stdout
    [line] = [line for line in script.splitlines() if line.startswith("srun ")]
    inner = shlex.split(line)[-1]
    variables = {
        **os.environ,
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_NODEID": "1",
        "master_addr": "node-a",
        "master_port": "20001",
    }
    ran = subprocess.run(["bash", "-c", inner + " --dry-run"], env=variables, capture_output=True, text=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr
    assert "--node-rank=1" in ran.stdout
    assert "--master-addr=node-a" in ran.stdout
