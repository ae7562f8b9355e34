"""autodist's measurements and its plan in a folder of the run, not in the home directory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

VERSIONS = "==0.8"
REASON = (
    "autodist keeps how long each operator took under ~/.cache/nnscaler for ever and for all, by the device's name "
    "alone: another torch, or another run on the same machine at the same time, plans with figures that are not its "
    "own, and no option of the trainer says otherwise. The plan's place is an option, but one that the generated code "
    "is bound to: a run directory that is moved would not go on."
)
UPSTREAM = "nnscaler/autodist/autodist_config.py, AutoDistConfig.__init__; policies.py, pas_autodist"

VARIABLE = "NNSCALER_AUTODIST"
PLAN = "plan.json"


def apply() -> None:
    """Use the folder that NNSCALER_AUTODIST names: `comp/` for measurements, `plan.json` for the plan."""
    from nnscaler.autodist.autodist_config import AutoDistConfig

    original = AutoDistConfig.__init__
    if getattr(original, "in_run", False):
        return

    def initialize(self: Any, *args: Any, **kwargs: Any) -> None:
        if folder := os.environ.get(VARIABLE):
            kwargs.setdefault("profile_dir", Path(folder))
            kwargs["save_plan_path"] = kwargs.get("save_plan_path") or str(Path(folder) / PLAN)
        original(self, *args, **kwargs)

    initialize.in_run = True  # type: ignore[attr-defined]
    AutoDistConfig.__init__ = initialize
