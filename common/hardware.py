"""Which declared platform this machine is, read from the platforms' `detect` data."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess

from common import platform
from common.errors import UserError
from common.recipe import Recipe


@functools.cache
def devices(identifier: str) -> int:
    """How many devices of that platform this machine has. A platform without `detect` has one a process: -1."""
    detect = platform.read(identifier).detect
    if detect is None:
        return -1
    if shutil.which(detect.command[0]) is None:
        return 0
    try:
        ran = subprocess.run(detect.command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    sizes = [int(match["mib"]) for match in re.finditer(detect.pattern, ran.stdout, re.MULTILINE)]
    return sum(detect.min_mib <= size <= detect.max_mib for size in sizes)


def choose(recipe: Recipe, candidates: list[str]) -> str:
    """The one of `candidates` that this machine is. Raises UserError when it is none or several."""
    here = [identifier for identifier in candidates if devices(identifier) > 0]
    if len(here) == 1:
        return here[0]
    looked = ", ".join(f"{identifier}: {devices(identifier)} devices" for identifier in candidates)
    raise UserError(
        "this machine is none of the platforms of this preset" if not here else "this machine is several platforms",
        found=looked,
        expected=" or ".join(candidates),
        hint="name one with --platform; without the hardware, --dry-run shows what would run",
    )


def need(identifier: str, wanted: int) -> None:
    """Raise UserError when this machine has fewer than `wanted` devices of the platform."""
    here = devices(identifier)
    if 0 <= here < wanted:
        raise UserError(
            f"too few devices: the run takes {wanted} of platform {identifier}",
            found=here,
            expected=wanted,
            hint="--nproc-per-node takes fewer; --dry-run shows the plan without the hardware",
        )
