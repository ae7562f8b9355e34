"""A child that does not outlive its parent.

Standard library only: recipes' environments import this.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h
_libc = ctypes.CDLL(None)  # opened here: between fork and exec nothing may be loaded
RUNNER_VARIABLE = "LLAMA3_RECIPES_RUNNER"  # the process id of the run that started this, set by common.run


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent ends (Linux; elsewhere nothing happens).

    torchrun starts its workers in sessions of their own: without this, workers go on training, and
    writing checkpoints, after `kill -9` of the run that started them, beside the run that replaces it.
    To be called before anything slow is imported.
    """
    if sys.platform != "linux":
        return
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # The parent may have ended before we asked; where a run started us, it ended with the run
    runner = os.environ.get(RUNNER_VARIABLE)
    if runner and not os.path.exists(f"/proc/{runner}"):  # noqa: PTH110 - before anything slow is imported
        os.kill(os.getpid(), signal.SIGKILL)
