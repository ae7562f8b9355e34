"""Which of the contest's eleven types a problem is of.

The wording is the contest's. A problem is found wherever it stands in a text, so that one in a prompt is
of the same type as the bare one. Standard library only: recipes' environments import this.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal[
    "arithmetic",
    "power",
    "square root",
    "fraction",
    "mean",
    "linear equation",
    "function value",
    "area",
    "mass",
    "discount",
    "sales",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
OTHER = "other"
"""What a problem of none of the types is called in tables: the long English ones."""

_N = r"([-+]?\d+(?:\.\d+)?)"
_C = r"\s*[，,]\s*"
_MINUS = str.maketrans("−－–", "---")
# In the order of KINDS. Spaces may be missing or more; a final mark belongs to the problem
_FORMS: dict[Kind, str] = {
    "arithmetic": rf"计算\s*{_N}\s*([-+*/×÷])\s*{_N}\s*等于多少\s*[?？]?",
    "power": rf"计算\s*{_N}\s*的\s*(\d+)\s*次方\s*[?？]?",
    "square root": rf"计算\s*{_N}\s*的平方根\s*[?？]?",
    "fraction": r"将分数\s*(-?\d+)\s*/\s*(-?\d+)\s*进行(?:简化|化简)\s*[。.]?",
    "mean": r"求以下数据的平均值\s*[:：]\s*\[([^\]]*)\]",
    "linear equation": rf"解方程\s*([-+]?\d*(?:\.\d+)?)\s*x\s*([-+])\s*{_N}\s*=\s*0",
    "function value": rf"当\s*x\s*=\s*{_N}\s*时{_C}求函数\s*y\s*=\s*{_N}\s*x\s*\^\s*(\d+)\s*的值",
    "area": rf"一个长方形的长为\s*{_N}\s*厘米{_C}宽为\s*{_N}\s*厘米{_C}请计算其面积\s*[。.]?",
    "mass": rf"某物体的密度为\s*{_N}\s*克/立方厘米{_C}体积为\s*{_N}\s*立方厘米{_C}请计算该物体的质量\s*[。.]?",
    "discount": rf"商品原价为\s*{_N}\s*元{_C}打折后的价格为\s*{_N}\s*元{_C}请计算打折的折扣比例\s*[。.]?",
    "sales": rf"去年销售额为\s*{_N}\s*万元{_C}今年销售额增加了\s*{_N}\s*[%％]{_C}请计算今年的销售额\s*[。.]?",
}
_COMPILED = {kind: re.compile(form) for kind, form in _FORMS.items()}
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


@dataclass(frozen=True)
class Problem:
    """A problem of one of the types, as it was found in a text."""

    kind: Kind
    text: str
    """The problem itself, without what stood around it."""
    numbers: tuple[str, ...]
    """The numbers that it gives, without signs, in order."""
    coefficient: float | None = None
    """a of a linear equation ax + b = 0."""


def find(text: str) -> Problem | None:
    """The last problem in `text`, or None where it holds none: what a prompt asks stands at its end."""
    plain = text.translate(_MINUS)
    found = [(match.start(), kind, match) for kind, form in _COMPILED.items() for match in form.finditer(plain)]
    if not found:
        return None
    _, kind, match = max(found, key=lambda each: each[0])
    asked = text[match.start() : match.end()]
    numbers = tuple(_NUMBER.findall(match[0]))
    coefficient = None
    if kind == "linear equation":
        a = match[1]
        coefficient = float(a + "1" if a in ("", "+", "-") else a)
    return Problem(kind, asked, numbers, coefficient)


def kind(text: str) -> Kind | None:
    """The type of the problem in `text`, or None for none of the eleven."""
    found = find(text)
    return found.kind if found else None
