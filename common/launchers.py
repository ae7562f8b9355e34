"""How each framework's launcher is called. A command is [*launcher words, script, arguments...]."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from common.errors import UserError


@dataclass(frozen=True)
class Cluster:
    """The processes of one launch, and the node that this is."""

    nproc_per_node: int
    nnodes: int = 1
    node_rank: int = 0
    master_addr: str = "127.0.0.1"
    master_port: int = 29500

    @property
    def world_size(self) -> int:
        return self.nproc_per_node * self.nnodes


def torchrun(python: str, cluster: Cluster, logs: Path) -> list[str]:
    """torchrun as a module: its console script's first line breaks in a path with spaces."""
    words = [python, "-m", "torch.distributed.run", f"--nproc-per-node={cluster.nproc_per_node}"]
    if cluster.nnodes == 1:
        # A free port is chosen, so that two runs on one machine do not meet
        return [*words, "--standalone"]
    return [
        *words,
        f"--nnodes={cluster.nnodes}",
        f"--node-rank={cluster.node_rank}",
        f"--master-addr={cluster.master_addr}",
        f"--master-port={cluster.master_port}",
    ]


def msrun(python: str, cluster: Cluster, logs: Path) -> list[str]:
    """MindSpore's launcher, through common/frameworks/mindformers/launch.py; one process needs none."""
    if cluster.world_size == 1:
        return [python]
    words = [
        python,
        "-m",
        "common.frameworks.mindformers.launch",
        f"--worker_num={cluster.world_size}",
        f"--local_worker_num={cluster.nproc_per_node}",
        f"--log_dir={logs}",
    ]
    if cluster.nnodes == 1:
        # A free port is chosen when it starts, so that two runs on one machine do not meet
        return words
    return [
        *words,
        f"--master_addr={cluster.master_addr}",
        f"--master_port={cluster.master_port}",
        f"--node_rank={cluster.node_rank}",
    ]


LAUNCHERS = {"torchrun": torchrun, "msrun": msrun}


def launch(name: str, python: str, cluster: Cluster, logs: Path) -> list[str]:
    """The words before the script. Raises UserError for a launcher that is not known."""
    if name not in LAUNCHERS:
        raise UserError(f"there is no launcher {name!r}", expected=", ".join(LAUNCHERS))
    return LAUNCHERS[name](python, cluster, logs)
