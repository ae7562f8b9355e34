"""Whether the versions on this machine belong together, by the table `versions` in recipe.yaml."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import Version

from common.environment import NO_DEPS, Spec, canonical, requirement_lines
from common.errors import UserError
from common.recipe import Versions
from tools.doctor.line import Line, passed


@dataclass(frozen=True)
class Together:
    """The set of the table that the recipe's pins are."""

    table: Versions
    chosen: dict[str, str]
    pinned: set[str]
    """The names in it that the recipe pins."""

    def line(self, name: str, found: str, to_do: str) -> Line:
        """Pass where `found` is the version of the set, as far as `found` is exact: 8.5 for 8.5.0.

        Something older fails, and a pinned distribution of another version. Newer software of the vendor's only
        warns: the table says nothing of it.
        """
        wanted = self.chosen.get(name)
        if wanted is None or same(wanted, found):
            return passed(name, found)
        told = f"{found}, but {self.others(self.chosen, name)} go with {wanted} ({self.table.source})"
        if fitting := [each for each in self.table.sets if same(each.get(name, ""), found)]:
            told += f"; {found} goes with {self.others(fitting[0], name)}"
        newer = Version(found) > Version(wanted)
        return Line(name, "warn" if newer and name not in self.pinned else "fail", told, to_do)

    def absent(self, line: Line) -> Line:
        """What to do where nothing was found, with the version to install."""
        wanted = self.chosen.get(line.name)
        return line if wanted is None else replace(line, to_do=f"{line.to_do}: {wanted} ({self.table.source})")

    def others(self, versions: dict[str, str], name: str) -> str:
        """The pinned distributions of a set, but for `name`."""
        return " and ".join(f"{key} {value}" for key, value in versions.items() if key in self.pinned - {name})


def same(stated: str, found: str) -> bool:
    """Whether `stated` begins with the numbers of `found`."""
    numbers = Version(found).release
    return bool(stated) and Version(stated).release[: len(numbers)] == numbers


def together(table: Versions, spec: Spec) -> Together:
    """The set that the pins are. Raises UserError when the table has none: pins or table are out of date."""
    pins = {canonical(each.name): each for each in requirements(requirement_lines(spec.requirements))}
    for each in table.sets:
        names = {name for name in each if canonical(name) in pins}
        if names and all(pins[canonical(name)].specifier.contains(each[name]) for name in names):
            return Together(table, each, names)
    raise UserError(
        "the table `versions` in recipe.yaml has no set with the pinned versions",
        file=spec.requirements,
        hint="add the set of these pins, with what its makers say goes with them",
    )


def requirements(lines: list[str]) -> Iterator[Requirement]:
    """The lines of a requirements file that name a distribution; an option of pip or a place does not."""
    for line in lines:
        with contextlib.suppress(InvalidRequirement):
            yield Requirement(NO_DEPS.sub("", line).split(" --")[0])
