"""Two nodes, here both on this machine, that meet at a port and share the run directory."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

from conftest import run_sh
from recipe_runs import free_port, wait_until, wait_until_nobody_works_in
from test_resume import bytes_of, rows

SECONDS = 1200  # for a node that hangs; a slow machine needs some of it


def start(output: Path, port: int) -> list[subprocess.Popen[str]]:
    """run.sh on node 0 and on node 1, one process each."""
    options = ["--nnodes", 2, "--nproc-per-node", 1, "--master-port", port]
    return [run_sh.start(output, *options, "--node-rank", rank) for rank in (0, 1)]


def end(nodes: list[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    """The status of each node and what it said; a node that does not end is a failure."""
    try:
        return [(node.wait(SECONDS), node.communicate()[0]) for node in nodes]
    finally:
        for node in nodes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(node.pid, signal.SIGKILL)


def workers(output: Path) -> dict[int, int]:
    """The process ids of the training processes in `output`, by RANK."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_text(errors="replace").split("\0")
            if str(output / "train" / "config.yaml") not in words or "torch.distributed.run" in words:
                continue
            variables = (process / "environ").read_text(errors="replace").split("\0")
            ranks = [each.removeprefix("RANK=") for each in variables if each.startswith("RANK=")]
            if ranks:
                found[int(ranks[0])] = int(process.name)
    return found


def test_a_worker_is_killed_and_both_nodes_go_on_from_the_last_checkpoint(run: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    nodes = start(output, free_port())
    wait_until(nodes[0], lambda: rows(output) >= 8)  # past the checkpoint of step 6
    killed = workers(output)
    assert set(killed) == {0, 1}, killed
    os.kill(killed[1], signal.SIGKILL)
    ended = end(nodes)
    assert [status for status, _ in ended] == [1, 1], ended
    wait_until_nobody_works_in(output)
    assert (output / "checkpoints" / "checkpoint-6" / "complete.json").exists()
    assert not (output / "train" / "done.json").exists()

    metrics = output / "metrics.jsonl"
    trained = metrics.read_text().splitlines()[:6]
    ended = end(start(output, free_port()))
    assert [status for status, _ in ended] == [0, 0], ended
    assert metrics.read_text().splitlines()[:6] == trained, "their seconds would differ, had they been trained again"
    steps = [line.split(",")[0] for line in metrics.read_text().splitlines()]
    assert steps == [f'{{"step": {step}' for step in range(1, 19)]
    # The same two ranks as two processes of one node: the same model
    assert bytes_of(output, "adapter") == bytes_of(run, "adapter")
    assert bytes_of(output, "model") == bytes_of(run, "model")
