"""Invented problems of the contest's eleven types, from a seed: what the smoke preset trains and is scored on.

    PYTHONPATH=. python recipes/lora_contest/generate.py --level easy --each 60 --seed 1 --output problems.jsonl

A line is {"problem", "solution"}, worded as in the contest. `contest` has numbers of the contest's size; `easy` has
those of a multiplication table, which the tiny base model knows.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Context, Decimal
from fractions import Fraction
from pathlib import Path

from common.cli import call
from common.errors import UserError
from common.files import write_text

LEVELS = ("easy", "contest")
DIGITS = Context(prec=28)  # the contest's quotients, roots and powers have 28 significant digits


@dataclass(frozen=True)
class Made:
    """A problem, its solution, and the plain equation behind both."""

    problem: str
    solution: str
    equation: str


Numbers = random.Random


def _decimal(numbers: Numbers, limit: int, *, negative: bool = True) -> Decimal:
    """A number with two decimals below `limit`."""
    cents = numbers.randint(-limit * 100 if negative else 1, limit * 100)
    return Decimal(cents).scaleb(-2)


def _arithmetic(numbers: Numbers, easy: bool) -> Made:
    sign = numbers.choice("+-*/")
    if easy:
        a, b = Decimal(numbers.randint(0, 9)), Decimal(numbers.randint(1, 9))
        if sign == "/":
            a *= b
    else:
        a, b = _decimal(numbers, 10_000), _decimal(numbers, 10_000) or Decimal("0.01")
    results: dict[str, Callable[[Decimal, Decimal], Decimal]] = {
        "+": DIGITS.add,
        "-": DIGITS.subtract,
        "*": DIGITS.multiply,
        "/": DIGITS.divide,
    }
    equation = f"{a} {sign} {b} = {results[sign](a, b)}"
    return Made(f"计算 {a} {sign} {b} 等于多少？", equation, equation)


def _power(numbers: Numbers, easy: bool) -> Made:
    base = Decimal(numbers.randint(1, 9)) if easy else _decimal(numbers, 1000)
    exponent = numbers.randint(1, 3 if easy else 5)
    equation = f"{base}^{exponent} = {DIGITS.power(base, exponent)}"
    return Made(f"计算 {base} 的 {exponent} 次方？", equation, equation)


def _square_root(numbers: Numbers, easy: bool) -> Made:
    square = Decimal(numbers.randint(1, 31) ** 2) if easy else _decimal(numbers, 10_000, negative=False)
    equation = f"√{square} = {DIGITS.sqrt(square)}"
    return Made(f"计算 {square} 的平方根？", equation, equation)


def _fraction(numbers: Numbers, easy: bool) -> Made:
    factor = numbers.randint(2, 5 if easy else 9)
    above = numbers.randint(1, 5 if easy else 40)
    below = numbers.randint(above + 1, 7 if easy else 60)
    simple = Fraction(above, below)
    shown = f"{simple.numerator}/{simple.denominator}"
    given = f"{above * factor}/{below * factor}"
    return Made(f"将分数 {given} 进行简化。", f"最简化的形式为：{shown}", f"{given} = {shown}")


def _mean(numbers: Numbers, easy: bool) -> Made:
    count = 2 if easy else numbers.randint(3, 10)
    values = [numbers.randint(1, 12 if easy else 100) for _ in range(count)]
    mean = sum(values) / count
    return Made(f"求以下数据的平均值：{values}", f"平均值为 {mean}", f"{values} = {mean}")


def _linear_equation(numbers: Numbers, easy: bool) -> Made:
    if easy:
        slope, root = numbers.randint(1, 9), numbers.randint(-9, 9)
        constant = -slope * root
    else:
        slope, constant = _nonzero(numbers, 100), numbers.randint(-100, 100)
    solution = -constant / slope + 0.0  # no "-0.0"
    equation = f"{slope}x + {constant} = 0"
    return Made(f"解方程 {equation}", f"方程的解为：{solution}", f"{equation}: x = {solution}")


def _function_value(numbers: Numbers, easy: bool) -> Made:
    x = Decimal(numbers.randint(1, 5)) if easy else _decimal(numbers, 10)
    factor, exponent = numbers.randint(1, 9) if easy else numbers.randint(1, 100), numbers.randint(1, 2 if easy else 99)
    value = DIGITS.multiply(Decimal(factor), DIGITS.power(x, exponent))
    return Made(
        f"当 x = {x} 时，求函数 y = {factor}x^{exponent} 的值",
        f"函数的值为：{value}",
        f"{factor} * {x}^{exponent} = {value}",
    )


def _area(numbers: Numbers, easy: bool) -> Made:
    long, wide = (numbers.randint(1, 9 if easy else 100) for _ in range(2))
    problem = f"一个长方形的长为 {long} 厘米，宽为 {wide} 厘米，请计算其面积。"
    return Made(problem, f"面积为 {long * wide} 平方厘米", f"{long} * {wide} = {long * wide}")


def _mass(numbers: Numbers, easy: bool) -> Made:
    density, volume = (numbers.randint(1, 9 if easy else 10) for _ in range(2))
    problem = f"某物体的密度为 {density} 克/立方厘米，体积为 {volume} 立方厘米，请计算该物体的质量。"
    return Made(problem, f"{density * volume} 克", f"{density} * {volume} = {density * volume}")


def _discount(numbers: Numbers, easy: bool) -> Made:
    if easy:
        before = numbers.choice((10, 20, 50, 100))
        after = before * numbers.randint(1, 19) // 20
    else:
        before, after = numbers.randint(1, 100), numbers.randint(1, 100)
    share = (before - after) / before * 100
    problem = f"商品原价为 {before} 元，打折后的价格为 {after} 元，请计算打折的折扣比例。"
    return Made(problem, f"{share}", f"{before} > {after}: {share}")


def _sales(numbers: Numbers, easy: bool) -> Made:
    before = 10 * numbers.randint(1, 9) if easy else numbers.randint(1, 100)
    percent = 10 * numbers.randint(1, 9) if easy else numbers.randint(1, 100)
    now = float(Decimal(before * (100 + percent)) / 100)
    problem = f"去年销售额为 {before} 万元，今年销售额增加了 {percent}%，请计算今年的销售额。"
    return Made(problem, f"{now}", f"{before} + {percent}% = {now}")


def _nonzero(numbers: Numbers, limit: int) -> int:
    return numbers.choice((-1, 1)) * numbers.randint(1, limit)


# By the names that common.evaluation.problems gives the types
MAKERS: dict[str, Callable[[Numbers, bool], Made]] = {
    "arithmetic": _arithmetic,
    "power": _power,
    "square root": _square_root,
    "fraction": _fraction,
    "mean": _mean,
    "linear equation": _linear_equation,
    "function value": _function_value,
    "area": _area,
    "mass": _mass,
    "discount": _discount,
    "sales": _sales,
}


def generate(level: str, each: int, seed: int) -> Iterator[Made]:
    """Up to `each` different problems of every type, in mixed order. The same seed gives the same problems."""
    numbers = random.Random(seed)
    made: dict[str, Made] = {}
    for maker in MAKERS.values():
        found: dict[str, Made] = {}
        for _ in range(50 * each):  # an easy type may have fewer
            if len(found) == each:
                break
            one = maker(numbers, level == "easy")
            found.setdefault(one.problem, one)
        made.update(found)
    mixed = list(made.values())
    numbers.shuffle(mixed)
    return iter(mixed)


def main() -> None:
    parser = argparse.ArgumentParser(description="Invented problems of the contest's eleven types")
    parser.add_argument("--level", default="contest", help=" or ".join(LEVELS))
    parser.add_argument("--each", type=int, default=100, help="problems of each type, where there are as many")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.level not in LEVELS:
        raise UserError("--level has no such choice", found=arguments.level, expected=" or ".join(LEVELS))
    rows = [
        {"problem": each.problem, "solution": each.solution}
        for each in generate(arguments.level, arguments.each, arguments.seed)
    ]
    write_text(arguments.output, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


if __name__ == "__main__":
    sys.exit(call(main))
