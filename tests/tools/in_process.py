"""A command line called in this process: there are many calls, and starting Python takes longer than most."""

from __future__ import annotations

import contextlib
import io
import sys
from unittest import mock

import typer

from common import cli
from tools.__main__ import app


def call(application: typer.Typer, *words: object) -> tuple[int, str, str]:
    """Exit status, standard output, standard error."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["command", *map(str, words)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        status = cli.call_app(application)
    return status, out.getvalue(), err.getvalue()


def tools(*words: object) -> tuple[int, str, str]:
    return call(app, *words)
