"""No process of a run outlives it."""

from __future__ import annotations

import os
import select
import subprocess
import sys

from core_support import ROOT

# The worker keeps the pipe open as long as it lives; the launcher between them gives it a session of its own.
WORKER = """
import os, signal
from common.process import die_with_parent
os.setsid()
{call}
print(os.getpid(), flush=True)
signal.pause()
"""
LAUNCHER = "import signal, subprocess, sys; subprocess.Popen([sys.executable, '-c', {worker!r}]); signal.pause()"


def start(call: str) -> tuple[subprocess.Popen[str], int]:
    launcher = LAUNCHER.format(worker=WORKER.format(call=call))
    child = subprocess.Popen(
        [sys.executable, "-c", launcher], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert child.stdout is not None
    return child, int(child.stdout.readline())


def ended(child: subprocess.Popen[str], seconds: float) -> bool:
    """Whether every process that holds the pipe has ended within `seconds`."""
    assert child.stdout is not None
    ready, _, _ = select.select([child.stdout], [], [], seconds)
    return bool(ready) and child.stdout.read() == ""


def test_a_worker_in_a_session_of_its_own_ends_with_what_started_it() -> None:
    child, _ = start("die_with_parent()")
    child.kill()
    assert ended(child, 20)
    child.wait()


def test_a_worker_that_does_not_ask_outlives_it() -> None:
    """The kernel's doing, not this test's: without the call the worker is still there."""
    child, worker = start("None")
    child.kill()
    child.wait()
    assert not ended(child, 0.3)
    os.kill(worker, 9)
    assert ended(child, 20)
