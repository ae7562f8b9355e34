"""Command lines end in one clear message and the right exit status."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from core_support import ROOT

PROGRAM = """
import errno, os, sys
import typer
from common import cli
from common.errors import RunError, UserError
app = typer.Typer(pretty_exceptions_enable=False)

@app.command()
def main() -> None:
    {body}

sys.exit(cli.call_app(app))
"""


PATH = "\n  to do:    check the path\n"


def run(body: str, **options: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}  # type: ignore[dict-item]
    options.setdefault("stdout", subprocess.PIPE)
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        [sys.executable, "-c", PROGRAM.format(body=body)], stderr=subprocess.PIPE, text=True, env=environment, **options
    )


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ("print('ok')", 0, ""),
        ("raise UserError('wrong', file='a.yaml', line=3, found='x', expected='y', hint='do z')", 2,
         "error: a.yaml:3: wrong\n  found:    x\n  expected: y\n  to do:    do z\n"),
        ("raise RunError('broken')", 1, "error: broken\n"),
        ("raise KeyboardInterrupt", 130, "error: interrupted\n"),
        ("raise KeyboardInterrupt('stopped; go on with x')", 130, "error: stopped; go on with x\n"),
        ("open('/nowhere/at/all')", 2, "error: /nowhere/at/all: no such file or directory" + PATH),
        ("open('/')", 2, "error: /: is a directory\n  to do:    check the path\n"),
        ("open('/proc/version/x')", 2, "error: /proc/version/x: not a directory\n  to do:    check the path\n"),
        ("os.mkdir('/proc')", 2, "error: /proc: exists already\n  to do:    choose another output\n"),
        ("open('/tmp/' + 'x' * 300)", 2, f"error: /tmp/{'x' * 300}: the name is too long" + PATH),
        ("raise OSError(errno.EIO, 'Input/output error', 'disk')", 1, "error: disk: Input/output error\n"),
        ("raise OSError('no number')", 1, "error: no number\n"),
    ],
)  # fmt: skip
def test_what_a_person_sees(body: str, status: int, says: str) -> None:
    done = run(body)
    assert (done.returncode, done.stderr) == (status, says)


def test_a_mistake_of_ours_keeps_its_traceback() -> None:
    done = run("raise ZeroDivisionError")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_the_traceback_is_there_when_asked_for() -> None:
    done = run("raise UserError('wrong')", env={"LLAMA3_RECIPES_TRACEBACK": "1"})
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert done.stderr.endswith("error: wrong\n")


@pytest.mark.parametrize("size", [1, 1_000_000], ids=["kept until the end", "written at once"])
def test_a_full_disk_under_the_output(size: int) -> None:
    with open("/dev/full", "w") as full:
        done = run(f"print('x' * {size})", stdout=full)
    assert done.returncode == 1
    assert done.stderr == "error: no space left on the device\n  to do:    free some space, then repeat the command\n"


def test_a_full_disk_under_a_file() -> None:
    done = run("open('/dev/full', 'w', buffering=1).write('x' + chr(10))")
    assert done.returncode == 1
    assert done.stderr.startswith("error: no space left on the device")


@pytest.mark.parametrize("size", [1, 1_000_000], ids=["kept until the end", "written at once"])
def test_a_reader_that_has_gone_is_no_error(size: int) -> None:
    read, write = os.pipe()
    os.close(read)
    done = run(f"print('x' * {size})", stdout=write)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_output_that_is_closed_is_no_error() -> None:
    shell = ["sh", "-c", '"$@" >&-', "sh", sys.executable, "-c", PROGRAM.format(body="print('x')")]
    done = subprocess.run(shell, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert (done.returncode, done.stderr) == (0, "")


def test_a_file_that_may_not_be_written(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0o500)
    tmp_path.chmod(0o755)
    body = f"open({str(locked / 'new')!r}, 'w')"
    if os.geteuid() == 0:  # to whom nothing is forbidden
        body = f"os.seteuid(65534); {body}"
    done = run(body)
    if "no such file" not in done.stderr:  # where the folders above may not be entered by another user
        assert (done.returncode, done.stderr.splitlines()[0][-len("permission denied") :]) == (2, "permission denied")
