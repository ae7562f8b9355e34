"""How every command line of the project ends: one clear message, the right exit status.

Standard library only, but for `call_app`: recipes' environments import this too.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

from common.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, UserError

if TYPE_CHECKING:
    import typer

TRACEBACK_VARIABLE = "LLAMA3_RECIPES_TRACEBACK"

_OS_ERRORS = {
    errno.ENOSPC: ("no space left on the device", EXIT_FAILED, "free some space, then repeat the command"),
    errno.EDQUOT: ("the disk quota is used up", EXIT_FAILED, "free some space, then repeat the command"),
    errno.EROFS: ("the file system is read-only", EXIT_USAGE, "choose an output that can be written"),
    errno.EACCES: ("permission denied", EXIT_USAGE, "check who owns it and its mode"),
    errno.EPERM: ("operation not permitted", EXIT_USAGE, "check who owns it and its mode"),
    errno.EMFILE: ("too many open files", EXIT_FAILED, "raise the limit (ulimit -n), or use fewer workers"),
    errno.ENAMETOOLONG: ("the name is too long", EXIT_USAGE, "check the path"),
    errno.EEXIST: ("exists already", EXIT_USAGE, "choose another output"),
    errno.ENOENT: ("no such file or directory", EXIT_USAGE, "check the path"),
    errno.ENOTDIR: ("not a directory", EXIT_USAGE, "check the path"),
    errno.EISDIR: ("is a directory", EXIT_USAGE, "check the path"),
}


def call(main: Callable[[], object]) -> int:
    """Run `main` and return the exit status; errors are printed to standard error in one message.

    Set LLAMA3_RECIPES_TRACEBACK=1 to see the traceback as well.
    """
    try:
        status = main()
        if sys.stdout is not None:  # as where it was closed (>&-)
            sys.stdout.flush()  # a full disk or a reader that has gone shows here, not after the status is settled
    except UserError as error:
        return _complain(str(error), error.status)
    except KeyboardInterrupt as interrupt:
        return _complain(str(interrupt) or "interrupted", EXIT_INTERRUPTED)
    except BrokenPipeError:
        return _reader_has_gone()
    except OSError as error:
        if error.filename is None:
            _drop_output()  # what standard output did not take would fail again when Python ends
        problem, code, hint = _OS_ERRORS.get(error.errno or 0, (error.strerror or str(error), EXIT_FAILED, None))
        where = f"{error.filename}: " if error.filename else ""
        return _complain(where + problem + (f"\n  to do:    {hint}" if hint else ""), code)
    return status if isinstance(status, int) else 0


def call_app(app: typer.Typer) -> int:
    """`call` for a typer application; a wrong option is one message, too.

    The application's own main is left out: it keeps Ctrl-C and what it says from the caller.
    """
    return call(lambda: _invoke(app))


def _invoke(app: typer.Typer) -> int:
    import typer

    module = getattr(sys.modules["__main__"], "__spec__", None)
    name = f"python -m {module.parent}" if module else os.path.basename(sys.argv[0])  # noqa: PTH119
    command = typer.main.get_command(app)
    try:
        with command.make_context(name, sys.argv[1:]) as context:
            status = command.invoke(context)
    except typer.Exit as done:
        return done.exit_code
    except typer.Abort:
        raise KeyboardInterrupt from None
    except Exception as error:
        # click's own errors of usage, without depending on which click typer brings
        if not hasattr(error, "format_message"):
            raise
        raise UserError(error.format_message() or "a command is missing", hint="see --help") from None
    return status if isinstance(status, int) else 0


def _reader_has_gone() -> int:
    """The reader of our output (head, less) wants no more: that is not an error."""
    _drop_output()
    return 0


def _drop_output() -> None:
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)


def _complain(message: str, status: int) -> int:
    if os.environ.get(TRACEBACK_VARIABLE):
        traceback.print_exc()
    print(f"error: {message}", file=sys.stderr)
    return status
