"""Values as people read them: units, thousands, and text that stays text in Markdown."""

from __future__ import annotations

import json
import math
import re
from typing import Any

NONE = "–"
_MARKDOWN = re.compile(r"([\\`*_{}\[\]|~#])")
# C0 and C1 controls but tab and newline: a model that was never trained writes them
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def number(value: float | None, digits: int = 4) -> str:
    """Four decimals by default, thousands with a comma; large and tiny numbers with significant digits."""
    if value is None:
        return NONE
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "infinite"
    if value == 0:
        return "0"
    if abs(value) < 10.0**-digits:
        return f"{value:.3g}"
    if abs(value) >= 1000:
        return f"{value:,.0f}" if abs(value) < 1e12 else f"{value:.3g}"
    return f"{value:.{max(digits - (2 if abs(value) >= 100 else 0), 0)}f}"


def count(value: float | None) -> str:
    return NONE if value is None else f"{value:,.0f}"


def parameters(value: int | None) -> str:
    """1,115,264 as 1.1 M."""
    if value is None:
        return NONE
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.1f} {letter}"
    return str(value)


def share(value: float | None) -> str:
    return NONE if value is None else f"{value:.1%}"


def size(value: float | None) -> str:
    """Bytes in MiB or GiB."""
    if value is None:
        return NONE
    return f"{value / 2**30:.2f} GiB" if value >= 2**30 else f"{value / 2**20:.0f} MiB"


def duration(seconds: float | None) -> str:
    """69.6 s, 2 min 5 s, 3 h 4 min."""
    if seconds is None:
        return NONE
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def plain(value: Any) -> str:
    """A setting as it stands in YAML: true, null, 0.0002, [a, b]."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def visible(text: Any) -> str:
    """`text` with control characters as their Unicode pictures, so that they neither vanish nor do anything."""
    return _CONTROLS.sub(lambda match: chr(0x2400 + ord(match[0])) if ord(match[0]) < 32 else "\ufffd", str(text))


def markdown(text: Any) -> str:
    """`text` on one line, nothing in it taken as Markdown or HTML: for table cells and sentences."""
    escaped = _MARKDOWN.sub(r"\\\1", " ".join(visible(text).split()))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def fenced(text: Any) -> str:
    """`text` as a code block whose fence is longer than any in it."""
    shown = visible(text)
    longest = max((len(run) for run in re.findall(r"`+", shown)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{shown}\n{fence}"
