"""Generated parts of Markdown files, between <!-- generated: NAME --> and <!-- end -->."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from common.errors import UserError, did_you_mean

BEGIN = re.compile(r"<!-- generated: ([a-z-]+) -->")
END = "<!-- end -->"
PART = re.compile(rf"^{BEGIN.pattern}\n.*?^{END}$", re.MULTILINE | re.DOTALL)


def has_parts(text: str) -> bool:
    return any(not fenced and BEGIN.fullmatch(line.strip()) for line, fenced in lines(text))


def lines(text: str) -> Iterator[tuple[str, bool]]:
    """The lines, and whether each stands in a fenced block: there, a marker is an example."""
    fence = False
    for line in text.splitlines():
        fence ^= line.lstrip().startswith("```")
        yield line, fence


def replace(text: str, parts: Mapping[str, Callable[[], str]], file: Path) -> str:
    """`text` with every generated part written anew; what stands outside the markers is kept as it is.

    Raises UserError for a part of unknown name and for a marker without its other half.
    """
    written: list[str] = []
    opened: tuple[int, str] | None = None
    for number, (line, fenced) in enumerate(lines(text), 1):
        begin = None if fenced else BEGIN.fullmatch(line.strip())
        if begin and opened:
            raise UserError(f"the part {opened[1]!r} has no {END}", file=file, line=opened[0])
        if begin:
            name = begin[1]
            if name not in parts:
                hint = did_you_mean(name, parts)
                raise UserError(
                    f"nothing generates a part {name!r} here",
                    file=file,
                    line=number,
                    expected=", ".join(parts),
                    hint=hint,
                )
            opened = (number, name)
            written += [line, "", parts[name]().strip("\n"), ""]
        elif line.strip() == END and not fenced:
            if not opened:
                raise UserError(f"{END} ends nothing", file=file, line=number)
            opened = None
            written.append(line)
        elif not opened:
            written.append(line)
    if opened:
        raise UserError(f"the part {opened[1]!r} has no {END}", file=file, line=opened[0])
    return "\n".join(written) + "\n"


def take_over(text: str, other: str) -> str:
    """`text` with the generated parts of `other` in place of its own of the same name."""
    theirs = {part[1]: part[0] for part in PART.finditer(other)}
    return PART.sub(lambda part: theirs.get(part[1], part[0]), text)
