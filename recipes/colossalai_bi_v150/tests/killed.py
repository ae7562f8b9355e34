"""run.sh, killed at moments of its way."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path


def kill_at(moment: Callable[[Path], bool], command: list[str], output: Path) -> None:
    """Start `command` as a terminal does, in a process group of its own, and kill that when `moment` has come."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        deadline = time.monotonic() + 900
        while not moment(output):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
    wait_until_nobody_works_in(output)


def seventh_step(output: Path) -> bool:
    """Past the checkpoint of step 5."""
    file = output / "metrics.jsonl"
    return file.exists() and len(file.read_text().splitlines()) >= 7


def checkpoint(output: Path) -> bool:
    """While it is written."""
    return (output / "checkpoints" / "step-10.partial").exists()


def export(output: Path) -> bool:
    return (output / "export.partial").exists()


MOMENTS = (seventh_step, checkpoint, export)


def wait_until_nobody_works_in(output: Path) -> None:
    """Workers left behind would go on writing beside the run that replaces theirs."""
    deadline = time.monotonic() + 60
    while at_work := [line for line in command_lines() if str(output) in line]:
        assert time.monotonic() < deadline, at_work
        time.sleep(0.1)


def command_lines() -> list[str]:
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(file.read_text(errors="replace"))
    return found
