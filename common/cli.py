"""How every command line of the project ends: one clear message, the right exit status.

Standard library only: recipes' environments import this too.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable

from common.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, UserError

TRACEBACK_VARIABLE = "LLAMA3_RECIPES_TRACEBACK"

_OS_ERRORS = {
    errno.ENOSPC: ("no space left on the device", EXIT_FAILED, "free some space, then repeat the command"),
    errno.EDQUOT: ("the disk quota is used up", EXIT_FAILED, "free some space, then repeat the command"),
    errno.EROFS: ("the file system is read-only", EXIT_USAGE, "choose an output that can be written"),
    errno.EACCES: ("permission denied", EXIT_USAGE, "check who owns it and its mode"),
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
    except UserError as error:
        return _complain(str(error), error.status)
    except KeyboardInterrupt as interrupt:
        return _complain(str(interrupt) or "interrupted", EXIT_INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output (head, less) has gone: that is not an error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        problem, code, hint = _OS_ERRORS.get(error.errno or 0, (error.strerror or str(error), EXIT_FAILED, None))
        where = f"{error.filename}: " if error.filename else ""
        return _complain(where + problem + (f"\n  to do:    {hint}" if hint else ""), code)
    return status if isinstance(status, int) else 0


def _complain(message: str, status: int) -> int:
    if os.environ.get(TRACEBACK_VARIABLE):
        traceback.print_exc()
    print(f"error: {message}", file=sys.stderr)
    return status
