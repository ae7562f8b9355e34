"""`python -m tools plan` as a person calls it, in this process: a call takes milliseconds and there are many."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

from common import cli
from tools.__main__ import app

ROOT = Path(__file__).resolve().parents[2]
RECIPE = "fsdp_qlora_70b"


def plan(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = ["tools", "plan", *map(str, arguments)]
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", command),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        status = cli.call_app(app)
    return subprocess.CompletedProcess(command, status, out.getvalue(), err.getvalue())


def answer(*arguments: object, fits: bool = True) -> dict[str, Any]:
    """What --json says; `fits` is what the exit status must say."""
    ran = plan(*arguments, "--json")
    assert ran.returncode == (0 if fits else 1), ran.stdout + ran.stderr
    read: dict[str, Any] = json.loads(ran.stdout)
    assert read["fits"]["fits"] is fits
    return read
