"""Numbers as people and models write them, in Chinese and English text, to exact decimals.

Standard library only: recipes' environments import this.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Context, Decimal, DivisionByZero, InvalidOperation, localcontext

DIGITS = 120
"""Significant digits that are calculated with: the longest reference has 31."""
LARGEST_EXPONENT = 9999
"""A number beyond 10 to this power, or below its inverse, is no answer."""

_WIDE = str.maketrans("０１２３４５６７８９．＋－−–％＝／＊（）＾ｘ×÷", "0123456789.+---%=/*()^x×÷")
_SUPERSCRIPT = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_LATEX = (
    (re.compile(r"\\(?:left|right|displaystyle|[,;:! ])"), ""),
    (re.compile(r"\\[dt]?frac\s*\{\s*(-?\s*[\d.,]+)\s*\}\s*\{\s*(-?\s*[\d.,]+)\s*\}"), r"\1/\2"),
    (re.compile(r"\\(?:text|mathrm|mathbf|textbf)\s*\{([^{}]*)\}"), r"\1"),
    (re.compile(r"\\(?:times|cdot)\b"), "×"),
    (re.compile(r"\\approx\b"), "≈"),
    (re.compile(r"\\%"), "%"),
    (re.compile(r"(?<=\d)\{,\}(?=\d)"), ","),
    (re.compile(r"\\[()\[\]]|\$"), " "),
)

# Digits with thousands separators, or without. Not the beginning of a longer number, nor of 1.2.3
_PLAIN = r"(?:\d{1,3}(?:,\d{3})+(?![\d])|\d+)(?:\.\d+)?|\.\d+"
_POWER = r"(?:\s*[×xX*]\s*10\s*(?:\^|\*\*)\s*[{(]?\s*[-+]?\d+\s*[})]?|[eE][-+]?\d+)"
_SIGN = r"(?:[-+]\s?|负\s?)?"
_UNSIGNED = rf"(?:{_PLAIN})(?:{_POWER})?"
_END = r"(?!\.?\d)"
# Units of the contest's problems: how many of the first of their row one of them is
_UNIT_ROWS: tuple[dict[str, str], ...] = (
    {"平方厘米": "1", "平方公分": "1", "cm^2": "1", "cm2": "1", "cm²": "1", "平方分米": "100", "平方米": "10000",
     "m^2": "10000", "m2": "10000", "m²": "10000", "平方毫米": "0.01", "square centimeters": "1",
     "square centimetres": "1"},
    {"克": "1", "g": "1", "grams": "1", "gram": "1", "千克": "1000", "公斤": "1000", "kg": "1000", "毫克": "0.001",
     "斤": "500"},
    {"万元": "1", "亿元": "10000", "元": "0.0001", "万": "1", "亿": "10000"},
)  # fmt: skip
_UNITS = {name: (row, Decimal(size)) for row, names in enumerate(_UNIT_ROWS) for name, size in names.items()}
UNIT_OF = {"area": 0, "mass": 1, "sales": 2}
"""The row of units that the results of a type of problem are stated in, in the row's first."""
# Units that are read past: results are numbers, and no other size of them is in use
_OTHER_UNITS = ("立方厘米", "厘米", "cm", "米", "折", "个", "件", "度", "℃", "美元", "人民币", "RMB", "yuan", "percent")
_UNIT = "|".join(sorted(map(re.escape, (*_UNITS, *_OTHER_UNITS, "%")), key=len, reverse=True))
VALUE = re.compile(
    rf"(?<![\d.])(?P<sign>{_SIGN})(?:(?P<below>{_PLAIN})\s*分之\s*(?P<above>{_SIGN}(?:{_PLAIN}))"
    rf"|(?P<number>{_UNSIGNED}){_END}(?:\s?/\s?(?P<divisor>-?\s?{_UNSIGNED}){_END})?)"
    rf"(?:\s*(?P<unit>{_UNIT})(?![A-Za-z]))?"
)
"""A value with its unit; see `read`."""


@dataclass(frozen=True)
class Value:
    number: Decimal
    unit: str | None = None
    quotient: tuple[str, str] | None = None
    """Its two numbers, where it is written as a fraction."""

    def in_row(self, row: int | None) -> Decimal:
        """The number in the first unit of a row of units; as it is where it has no unit of that row."""
        if row is None or self.unit not in _UNITS or _UNITS[self.unit][0] != row:
            return self.number
        with localcontext(_context()):
            return self.number * _UNITS[self.unit][1]


def tidy(text: str) -> str:
    """`text` with LaTeX, full-width forms and superscripts in plain characters."""
    text = re.sub(r"(?<=[０-９])，(?=[０-９]{3}(?![０-９]))", ",", text)
    text = re.sub(r"(?<=10)[⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+", lambda match: "^" + match[0].translate(_SUPERSCRIPT), text)
    text = text.translate(_WIDE)
    for pattern, replacement in _LATEX:
        text = pattern.sub(replacement, text)
    return text


def read(match: re.Match[str]) -> Value | None:
    """The value that VALUE has found; None for a division by zero and for what is too large to be meant."""
    above, below = match["number"] or match["above"], match["below"] or match["divisor"]
    number, divisor = _decimal(above), _decimal(below) if below else None
    if number is None or (below and not divisor):
        return None
    with localcontext(_context()):
        if divisor is not None:
            number = number / divisor
        if match["sign"].strip() in ("-", "负"):
            number = -number
    return Value(number, match["unit"], (_bare(above), _bare(below)) if below else None)


def _decimal(text: str) -> Decimal | None:
    plain = re.sub(r"[\s,{}()]", "", text).replace("负", "-")
    plain = re.sub(r"[×xX*]10(?:\^|\*\*)", "e", plain)
    exponent = re.search(r"e([-+]?\d+)$", plain, re.IGNORECASE)
    if exponent and (len(exponent[1]) > 6 or abs(int(exponent[1])) > LARGEST_EXPONENT):
        return None
    with localcontext(_context()):
        try:
            return +Decimal(plain)
        except InvalidOperation:
            return None


def _bare(text: str) -> str:
    return re.sub(r"[\s,+-]|负", "", text)


def _context() -> Context:
    return Context(prec=DIGITS, traps=[InvalidOperation, DivisionByZero])
