"""run.sh as the tests of a recipe start it: to its end, once for all of them, or stopped on the way."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 1800  # after which a run is taken for stuck, on a machine much slower than the one it was made on


class RunSh:
    """`bash run.sh` of the recipe in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "run.sh"

    def __call__(self, *arguments: object, cwd: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
        """To its end, with its output and further environment variables."""
        command = ["bash", str(self.file), *map(str, arguments)]
        env = {**os.environ, **variables}
        return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=SECONDS, env=env)

    def start(self, output: Path, *options: object) -> subprocess.Popen[str]:
        """In a process group of its own, as a terminal starts it."""
        return subprocess.Popen(
            ["bash", str(self.file), "--output", str(output), *map(str, options)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def smoke(self, output: Path, cwd: Path = ROOT, killed_at: Iterable[Callable[[], bool]] = ()) -> Path:
        """A finished smoke run with nothing given, in `output`, or where LLAMA3_SMOKE_RUN names one.

        It is killed at each of the moments first, and started again.
        """
        if given := os.environ.get("LLAMA3_SMOKE_RUN"):
            return Path(given)
        for moment in killed_at:
            process = self.start(output)
            wait_until(process, moment)
            kill(process, output)
        done = self("--output", output, cwd=cwd)
        assert done.returncode == 0, done.stdout + done.stderr
        return output


def wait_until(process: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def kill(process: subprocess.Popen[str], output: Path) -> None:
    """kill -9 of a run in `output` and of its process group."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    wait_until_nobody_works_in(output)


def interrupt(process: subprocess.Popen[str]) -> str:
    """Ctrl-C, and what the run said until it ended."""
    os.killpg(process.pid, signal.SIGINT)
    return process.communicate()[0]


def wait_until_nobody_works_in(output: Path) -> None:
    """Workers left behind would go on writing beside the run that replaces theirs."""
    deadline = time.monotonic() + 60
    while at_work := [line for line in command_lines() if str(output) in line]:
        assert time.monotonic() < deadline, at_work
        time.sleep(0.1)


def command_lines() -> list[str]:
    """Of all processes of this machine."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(file.read_text(errors="replace"))
    return found


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])
