"""What a run was made with: versions, machine, commit. Recorded in plan.yaml and shown in the report."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from common.environment import ROOT, distribution
from common.plan import Plan


def provenance(plan: Plan) -> dict[str, Any]:
    return {"machine": machine(), "commit": commit(), "versions": versions(plan)}


def machine() -> dict[str, Any]:
    """The machine in the words of its own kernel; memory in GiB."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory, 1),
        "system": platform.platform(),
    }


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.machine()


def commit(folder: Path | None = None) -> str | None:
    """The project's commit, with "+changes" when files differ from it; None outside a checkout.

    Files that are not tracked count where `folder` is given, and others than its own do not.
    """
    git = ["git", "-C", str(ROOT)]
    changes = ["status", "--porcelain", *(["--", str(folder)] if folder else ["--untracked-files=no"])]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        status = subprocess.run([*git, *changes], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+changes" if status.stdout.strip() else "")


@functools.cache
def _installed(site_packages: Path) -> dict[str, str]:
    found = importlib.metadata.distributions(path=[str(site_packages)])
    return {each.metadata["Name"].lower().replace("_", "-"): each.version for each in found}


def versions(plan: Plan) -> dict[str, str]:
    """The versions of what recipe's requirements name themselves (requirements/*.in), as installed."""
    named = [
        distribution(line.strip()).lower()
        for file in sorted(plan.spec.requirements.parent.glob("*.in"))
        for line in file.read_text(encoding="utf-8").splitlines()
        if line.strip() and not line.startswith(("#", "-"))
    ]
    folders = sorted(plan.spec.folder().glob("lib/python3.*/site-packages"))
    installed = _installed(folders[0]) if folders else {}
    return {name: installed[name] for name in named if name in installed}
