"""One line of the doctor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from common.errors import UserError

State = Literal["pass", "warn", "fail"]


@dataclass(frozen=True)
class Line:
    name: str
    state: State
    found: str
    to_do: str = ""


def passed(name: str, found: str) -> Line:
    return Line(name, "pass", found)


def at_least(name: str, here: float, needed: float, unit: str, to_do: str, *, exact: bool = True) -> Line:
    """Pass where `here` reaches `needed`, else fail, or warn where the need is somebody's claim (not `exact`)."""
    text = f"{here:.4g} {unit}, needs {needed:.4g}" + ("" if exact else " (an estimate)")
    if here >= needed:
        return passed(name, text)
    return Line(name, "fail" if exact else "warn", text, to_do)


def tried(name: str, look: Callable[[], str]) -> Line:
    """Pass with what `look` finds; a UserError is a fail with its message and its hint."""
    try:
        return passed(name, look())
    except UserError as error:
        place = f"{error.file}:{error.line or ''}".rstrip(":") + ": " if error.file else ""
        found = f" (found {error.found})" if error.found is not None else ""
        return Line(name, "fail", f"{place}{error.problem}{found}", error.hint or str(error.expected or ""))
