"""The same run for a cluster's scheduler: a Slurm batch script, or a Kubeflow TrainJob."""

from __future__ import annotations

import math
import re
import shlex
from pathlib import Path
from typing import Any

import yaml

from common.environment import ROOT
from common.request import Request
from tools.planning.question import SOME_DATA, Question

IMAGE = "python:3.11"
VOLUME = "llama3-recipes"
MOUNTED = "/workspace"
RUNTIME = "torch-distributed"  # Kubeflow Trainer's own runtime; it sets the PET_* variables on every node
MORE = 1.25  # of the estimate of host memory and of time is asked for
CORES_OF_A_DEVICE = 8
LONGEST_NAME = 63  # of a Kubernetes label


def slurm(question: Question, found: dict[str, Any]) -> str:
    """A script for sbatch. Every node runs run.sh; cut off by the time limit, it goes on from its checkpoint."""
    plan, job = question.plan, question.job
    name = f"{plan.recipe_folder.name}-{plan.preset_name}"
    directives = [
        f"--job-name={name}",
        f"--nodes={job.nodes}",
        "--ntasks-per-node=1",
        f"--cpus-per-task={job.processes * CORES_OF_A_DEVICE if plan.platform.schedulers else job.processes}",
        f"--mem={_host_gib(found)}G",
        f"--gres={plan.platform.schedulers.slurm_gres}:{job.processes}" if plan.platform.schedulers else None,
        f"--time={_hours(found)}:00:00" if _hours(found) else None,
        f"--output={name}-%j.log",
        "--open-mode=append",
        "--requeue",
    ]
    words = run_words(question, str(plan.recipe_folder / "run.sh"))
    missing = _missing(question)
    return "\n".join(
        [
            "#!/usr/bin/env bash",
            *(f"#SBATCH {each}" for each in directives if each),
            f"# {plan.recipe.summary}",
            *(f"# {line}" for line in _words(found)),
            *(f"# {line}" for line in missing),
            "# The run directory must be on a file system that all nodes share.",
            "set -euo pipefail",
            "# The first node is node 0; its address is the one that Slurm itself reaches it at",
            'first="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"',
            """master_addr="$(scontrol --oneliner show node "$first" | sed -n 's/.* NodeAddr=\\([^ ]*\\).*/\\1/p')\"""",
            "export master_addr master_port=$((20000 + SLURM_JOB_ID % 10000))",
            "# One task a node; run.sh starts a process for each device",
            f"srun --kill-on-bad-exit=1 bash -c {shlex.quote(_on_a_node(words))}",
            "",
        ]
    )


def _on_a_node(words: list[str]) -> str:
    cluster = (
        '--nnodes "$SLURM_JOB_NUM_NODES" --node-rank "$SLURM_NODEID" '
        '--master-addr "$master_addr" --master-port "$master_port"'
    )
    return f"exec {shlex.join(words)} {cluster}"


def kubernetes(question: Question, found: dict[str, Any], image: str, volume: str) -> str:
    """A Kubeflow TrainJob (trainer.kubeflow.org/v1alpha1) as YAML; the claim `volume` has the project and its runs."""
    plan, job = question.plan, question.job
    resources: dict[str, Any] = {"memory": f"{_host_gib(found)}Gi"}
    if plan.platform.schedulers:
        asked = plan.platform.schedulers
        resources[asked.kubernetes_resource] = -(-job.processes // asked.kubernetes_devices)
    script = f"{MOUNTED}/{plan.recipe_folder.relative_to(ROOT).as_posix()}/run.sh" if _inside(plan) else "run.sh"
    command = (
        f"exec {shlex.join(run_words(question, script))} "
        '--nnodes "$PET_NNODES" --node-rank "$PET_NODE_RANK" '
        '--master-addr "$PET_MASTER_ADDR" --master-port "$PET_MASTER_PORT"'
    )
    mount = {"name": "workspace", "mountPath": MOUNTED}
    memory = {"name": "shared-memory", "mountPath": "/dev/shm"}  # collectives between a node's processes use it
    pod = {
        "volumes": [
            {"name": "workspace", "persistentVolumeClaim": {"claimName": volume}},
            {"name": "shared-memory", "emptyDir": {"medium": "Memory"}},
        ],
        "containers": [{"name": "node", "volumeMounts": [mount, memory]}],
    }
    patched = {"replicatedJobs": [{"name": "node", "template": {"spec": {"template": {"spec": pod}}}}]}
    body = {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"name": _label(f"{plan.recipe_folder.name}-{plan.preset_name}")},
        "spec": {
            "runtimeRef": {"name": RUNTIME},
            "trainer": {
                "image": image,
                "numNodes": job.nodes,
                "numProcPerNode": job.processes,
                "command": ["bash", "-c"],
                "args": [command],
                "resourcesPerNode": {"limits": resources, "requests": dict(resources)},
            },
            "runtimePatches": [
                {
                    "manager": "llama3-recipes.io/plan",
                    "trainingRuntimeSpec": {"template": {"spec": patched}},
                }
            ],
        },
    }
    comments = [*_words(found), *_missing(question), f"The claim {volume} is mounted at {MOUNTED}: this project."]
    text: str = yaml.safe_dump(body, sort_keys=False, width=1000, allow_unicode=True)
    return "".join(f"# {line}\n" for line in comments) + text


def run_words(question: Question, script: str) -> list[str]:
    """The call of run.sh that is planned, without the options of the cluster."""
    request: Request = question.request
    words = ["bash", script, "--preset", request.preset, "--platform", question.plan.platform_id]
    words += ["--model", request.model] if request.model else []
    words += ["--data", "DATA" if request.data == SOME_DATA else request.data] if request.data else []
    for assignment in request.assignments:
        words += ["--set", assignment]
    words += ["--output", str(Path(request.output).absolute())] if request.output else []
    return [*words, "--nproc-per-node", str(question.job.processes)]


def _missing(question: Question) -> list[str]:
    return ["DATA stands for your data: --data names them."] if question.request.data == SOME_DATA else []


def _words(found: dict[str, Any]) -> list[str]:
    memory, verdict = found["memory"], found["fits"]
    fits = "fits" if verdict["fits"] else "does NOT fit"
    return [f"Planned: {memory['peak']:g} GiB a device ({fits}), {found['host']['peak']:g} GiB of host memory a node."]


def _host_gib(found: dict[str, Any]) -> int:
    """The estimate and more, or what recipe.yaml says of the preset where that is larger."""
    stated = found["stated"]["host_gib"] if found["stated"] else 0
    needed: float = max(2.0, found["host"]["peak"] * MORE, stated)
    return math.ceil(needed)


def _hours(found: dict[str, Any]) -> int | None:
    seconds: float | None = found["time"] and found["time"]["training"]
    return None if seconds is None else math.ceil(seconds * MORE / 3600)


def _inside(plan: Any) -> bool:
    return bool(plan.recipe_folder.is_relative_to(ROOT))


def _label(name: str) -> str:
    """A name that Kubernetes takes: lower case, digits and hyphens."""
    return re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-")[:LONGEST_NAME]
