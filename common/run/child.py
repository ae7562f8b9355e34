"""A plan's command as a child of this process: its setup scripts, its variables, its log, and its end."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from common.plan import Plan, expand
from common.process import RUNNER_VARIABLE, die_with_parent

GRACE_SECONDS = 20.0  # between asking a child to end and killing it


def start(plan: Plan, command: Sequence[str], output: BinaryIO) -> subprocess.Popen[bytes]:
    """Start `command` in the plan's environment; what it says is added to `output`."""
    variables = {**os.environ, **{name: expand(value) for name, value in plan.environment.items()}}
    variables[RUNNER_VARIABLE] = str(os.getpid())
    # The environment's own programs first: launchers look for plain `python`
    variables["PATH"] = os.pathsep.join([str(Path(command[0]).parent), variables.get("PATH", "")])
    # In this process group, so that Ctrl-C and kill reach it as they reach us; kill -9 of us ends it, too
    return subprocess.Popen(
        _sourced(plan, command),
        stdout=output,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        env=variables,
        preexec_fn=die_with_parent,
    )


def _sourced(plan: Plan, command: Sequence[str]) -> list[str]:
    """The command, after the platform's setup scripts where it has any. Values are never parsed by the shell."""
    if not plan.platform.setup_scripts:
        return list(command)
    sourcing = "".join(f'source "${{{index}}}"; ' for index in range(1, len(plan.platform.setup_scripts) + 1))
    shift = f'shift {len(plan.platform.setup_scripts)}; exec "$@"'
    return ["bash", "-c", sourcing + shift, "bash", *map(expand, plan.platform.setup_scripts), *command]


def end(child: subprocess.Popen[bytes]) -> None:
    """Ask the child to end, and kill it when it does not."""
    child.send_signal(signal.SIGTERM)
    try:
        child.wait(GRACE_SECONDS)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        child.kill()
        child.wait()
