"""Runs that are watched, killed and interrupted."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from conftest import RUN_SH


def start(output: Path, *options: str) -> subprocess.Popen[str]:
    """run.sh in a process group of its own, as a terminal starts it."""
    return subprocess.Popen(
        ["bash", str(RUN_SH), "--output", str(output), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_until(process: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 600
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)


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


def rows(output: Path) -> list[dict[str, float]]:
    file = output / "metrics.jsonl"
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]
