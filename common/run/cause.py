"""Why a stage failed, in one line, read from what it printed."""

from __future__ import annotations

import re
from pathlib import Path

PREFIX = re.compile(r"^(?:\[rank\d+\]: |\[default\d+\]:)")  # torch's, and torchrun's where it redirects
OURS = re.compile(r"error: (?P<text>.*)")
EXCEPTION = re.compile(r"(?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*(?:Error|Exception|Interrupt)\b.*")
TRACEBACK = "Traceback (most recent call last):"
AFTER_TRACEBACK = re.compile(r"(?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*(?:: .*)?")  # not every exception says so in its name
# What a launcher adds when one of its processes has failed already
CONSEQUENCES = (
    "ChildFailedError",
    "SignalException",
    "DistNetworkError",
    "Connection closed by peer",
    "RendezvousConnection",
)


def cause(log: Path, start: int, exit_status: int) -> str:
    """The cause of a failure from the bytes of `log` after `start`; from the exit status where it says nothing.

    The project's own message comes first, then the first exception that is not a consequence of another
    process's end.
    """
    with open(log, "rb") as file:
        file.seek(start)
        text = file.read().decode("utf-8", errors="replace").splitlines()
    text = [PREFIX.sub("", line) for line in text]
    for index, line in enumerate(text):
        if match := OURS.fullmatch(line):
            return "\n".join([match["text"], *_indented(text[index + 1 :])])
    exceptions = _exceptions(text)
    for exception in exceptions:
        if not any(word in exception for word in CONSEQUENCES):
            return exception
    if exit_status in (-9, 137) or any("exitcode: -9" in re.sub(r"\s+", " ", line).replace(" :", ":") for line in text):
        return "a process was killed from outside (signal 9), most likely because the memory ran out"
    return exceptions[0] if exceptions else f"it ended with exit status {exit_status}"


def _exceptions(lines: list[str]) -> list[str]:
    found = []
    within = False
    for line in lines:
        if line == TRACEBACK:
            within = True
        elif EXCEPTION.fullmatch(line.strip()) or (within and AFTER_TRACEBACK.fullmatch(line)):
            found.append(line.strip())
            within = False
    return found


def _indented(lines: list[str]) -> list[str]:
    taken = []
    for line in lines:
        if not line.startswith("  "):
            break
        taken.append(line)
    return taken
