"""What the probes of all frameworks share: their names, their bounds, their command line and their lines.

Standard library only: the probes import this in the recipes' environments.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

Line = dict[str, Any]
"""{probe, name, ok, value, detail}"""

PROBES = ("dtype", "operator", "collective", "rate", "golden")
"""Each is started by itself: what crashes or hangs in one is not lost for the others."""
DTYPES = {"float32": 1e-5, "bfloat16": 2e-2, "float16": 3e-3}
"""Largest relative error of a 256 x 256 product that counts as right: a few roundings of the dtype."""
SIZES = (2**10, 2**16, 2**20, 2**24)
"""Bytes of one rank's part in a collective."""
MATMUL = 8192
MATMUL_ON_CPU = 1024


def line(probe: str, name: str, ok: bool, value: float | None = None, detail: str = "") -> Line:
    return {"probe": probe, "name": name, "ok": bool(ok), "value": value, "detail": detail}


def arguments(description: str | None) -> argparse.Namespace:
    """What `tools onboard` calls a probe with; `dtypes` is a list, `golden` and `output` are paths."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--probe", required=True, choices=PROBES)
    parser.add_argument("--device", required=True)
    parser.add_argument("--backend", required=True)
    parser.add_argument("--dtypes", required=True, type=lambda text: [name for name in text.split(",") if name])
    parser.add_argument("--golden", required=True, type=Path)
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--plugin")
    return parser.parse_args()


def attempt(probe: str, works: Mapping[str, Callable[[], Iterator[Line]]]) -> list[Line]:
    """The lines of one probe; where it raises, those until then and one that says so."""
    lines: list[Line] = []
    try:
        lines.extend(works[probe]())
    except Exception as error:  # what a platform lacks shows as any kind of error
        lines.append(line(probe, "did not run", False, None, why(error)))
    return lines


def why(error: Exception) -> str:
    """An error in one line, for a table."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def write(lines: list[Line], file: Path) -> None:
    """In one piece: a file that is there is whole."""
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(lines, indent=2), encoding="utf-8")
    partial.rename(file)
