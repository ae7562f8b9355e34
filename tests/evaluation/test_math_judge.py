"""Which answers to the contest's problems are right."""

from __future__ import annotations

import json
import os
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.data.layouts import alpaca_prompt
from common.evaluation import judge, problems, values

# One problem of each type, its type and its solution, in the contest's words with numbers of our own
EACH = [
    ("计算 -12.50 + 4.25 等于多少？", "arithmetic", "-12.50 + 4.25 = -8.25"),
    ("计算 -1.5 的 3 次方？", "power", "-1.5^3 = -3.375"),
    ("计算 20.25 的平方根？", "square root", "√20.25 = 4.5"),
    ("将分数 20/24 进行简化。", "fraction", "最简化的形式为：5/6"),
    ("求以下数据的平均值：[1, 2, 6]", "mean", "平均值为 3.0"),
    ("解方程 4x + -3 = 0", "linear equation", "方程的解为：0.75"),
    ("当 x = 1.5 时，求函数 y = 4x^3 的值", "function value", "函数的值为：13.500"),
    ("一个长方形的长为 12 厘米，宽为 7 厘米，请计算其面积。", "area", "面积为 84 平方厘米"),
    ("某物体的密度为 9 克/立方厘米，体积为 3 立方厘米，请计算该物体的质量。", "mass", "27 克"),
    ("商品原价为 50 元，打折后的价格为 42 元，请计算打折的折扣比例。", "discount", "16.0"),
    ("去年销售额为 50 万元，今年销售额增加了 30%，请计算今年的销售额。", "sales", "65.0"),
]
PROBLEM = {kind: (problem, solution) for problem, kind, solution in EACH}


def right(kind: str, prediction: str, tolerance: float = 1e-8) -> bool:
    problem, solution = PROBLEM[kind]
    return judge.judge(problem, solution, prediction, tolerance).correct


@pytest.mark.parametrize(("problem", "kind", "solution"), EACH)
def test_each_type_bare_and_in_a_prompt(problem: str, kind: str, solution: str) -> None:
    prompt = alpaca_prompt(problem)
    assert problems.kind(problem) == problems.kind(prompt) == kind
    for asked in (problem, prompt):
        for echo in ("", problem, prompt, f"{problem}\n\n### Response:"):
            found = judge.judge(asked, solution, echo + solution, 1e-8)
            assert (found.kind, found.correct) == (kind, True), echo
        assert not judge.judge(asked, solution, asked, 1e-8).correct, "the problem is not its answer"


def test_all_types_are_there() -> None:
    assert tuple(kind for _, kind, _ in EACH) == problems.KINDS
    assert problems.kind("How many clips did she sell?") is None


@pytest.mark.parametrize(
    ("kind", "prediction"),
    [
        ("arithmetic", "-8.25"),
        ("arithmetic", "－８．２５"),
        ("arithmetic", "−8.250"),
        ("arithmetic", "负 8.25"),
        ("arithmetic", "答案是 -8.25。"),
        ("arithmetic", "The answer is **-8.25**."),
        ("arithmetic", "The answer is $-8.25$"),
        ("arithmetic", "\\boxed{-8.25}"),
        ("arithmetic", "-33/4"),
        ("arithmetic", "-\\frac{33}{4}"),
        ("arithmetic", "-8.25e0"),
        ("arithmetic", "-0.825 × 10^1"),
        ("arithmetic", "-82.5 \\times 10^{-1}"),
        ("arithmetic", "-82.5×10⁻¹"),
        ("arithmetic", "-825%"),
        ("arithmetic", "-12.50 + 4.25 = -8.25 -12.50"),  # rambles on
        ("arithmetic", "-12.50 + 4.25 = -8.25\n计算 3 + 4 等于多少？ 3 + 4 = 7"),
        ("arithmetic", "-8.25\n\n### Instruction:\n计算 3 + 4 等于多少？\n\n### Response:7"),
        ("arithmetic", "12.50 - 4.25 = 8.25\n因为符号为负，所以等于 -8.25"),
        ("arithmetic", "12.50 - 4.25 = 8.25\n-8.25"),
        ("arithmetic", "The answer is -8.25, which is 3 less than -5.25, as -5.25 - 3 = -8.25."),
        ("power", "-1.5^3 = 2.25 * -1.5 = -3.375"),
        ("square root", "√20.25 = 4.5"),
        ("square root", "20.25 的平方根是 4.5"),
        ("fraction", "5/6"),
        ("fraction", "20/24 = 5/6"),
        ("fraction", "$\\dfrac{5}{6}$"),
        ("fraction", "6 分之 5"),
        ("mean", "(1 + 2 + 6) / 3 = 9 / 3 = 3"),
        ("linear equation", "x = 0.75"),
        ("linear equation", "x = 3/4"),
        ("linear equation", "方程的解为：3/4"),
        ("linear equation", "移项得 4x = 3，两边除以 4，得 x = 0.75"),
        ("linear equation", "4x = 3\nx = 3/4 = 0.75"),
        ("linear equation", "\\boxed{x = \\frac{3}{4}}"),
        ("function value", "y = 4 × 1.5^3 = 4 × 3.375 = 13.5"),
        ("area", "84 cm^2"),
        ("area", "面积 = 长 × 宽 = 12 × 7 = 84 平方厘米"),
        ("area", "0.0084 平方米"),
        ("mass", "9 × 3 = 27克"),
        ("mass", "0.027 kg"),
        ("mass", "The mass is 27 g."),
        ("discount", "折扣比例为 16%"),
        ("discount", "(50 - 42) / 50 * 100 = 16.0"),
        ("sales", "50 × (1 + 30%) = 65 万元"),
        ("sales", "今年的销售额为 650,000 元。"),
    ],
)
def test_right_however_it_is_said(kind: str, prediction: str) -> None:
    assert right(kind, prediction)


@pytest.mark.parametrize(
    ("kind", "prediction"),
    [
        ("arithmetic", ""),
        ("arithmetic", "8.25"),
        ("arithmetic", "-8.251"),
        ("arithmetic", "-8.2"),  # a prefix
        ("arithmetic", "-18.25"),
        ("arithmetic", "-8.25.1"),
        ("arithmetic", "= -8.25.1"),
        ("arithmetic", "1-8.25"),  # a part
        ("arithmetic", "-12.50 + 4.25 = ?"),
        ("arithmetic", "1. 3.5 2. -8.25 3. 7"),  # a list of numbers states none
        ("arithmetic", "A. -8.25 B. -8.25 C. 4"),
        ("arithmetic", "-8.25 + 1"),
        ("arithmetic", "= -8.25 * 10 = "),
        ("arithmetic", "-8.25, so the answer is 4"),
        ("arithmetic", "= -1e99999999999"),
        ("arithmetic", "= 1/0"),
        ("fraction", "20/24"),
        ("fraction", "10/12"),  # not simple
        ("linear equation", "4x = 0.75"),
        ("linear equation", "-x = 0.75"),
        ("linear equation", "y = 0.75"),
        ("linear equation", "4x = 3\nx = 3/4\nx = 3/4"),  # a step on the way, never carried out
        ("area", "长为 84 厘米"),
        ("area", "84 平方米"),
        ("mass", "密度为 27 克/立方厘米"),
        ("discount", "原价为 16 元"),
        ("discount", "0.16"),
    ],
)
def test_wrong_however_near_it_looks(kind: str, prediction: str) -> None:
    assert not right(kind, prediction)


def test_a_quotient_that_was_asked_for_is_no_answer() -> None:
    for said in ("9/4", "答案是 9/4", "9 / 4 = 9/4"):
        assert not judge.judge("计算 9 / 4 等于多少？", "9 / 4 = 2.25", said).correct
    assert judge.judge("将分数 5/6 进行简化。", "最简化的形式为：5/6", "5/6").correct


def test_the_tolerance_is_absolute_and_an_equation_s_is_on_the_equation() -> None:
    assert right("arithmetic", "-8.24", 1e-2) and not right("arithmetic", "-8.2399", 1e-2)
    large = ("计算 1000 * 1000 等于多少？", "1000 * 1000 = 1000000")
    assert not judge.judge(*large, "1000001", 1e-2).correct and judge.judge(*large, "1000001", 1).correct
    # 4x - 3 at 0.7525 is 0.01, at 0.753 it is 0.012
    assert right("linear equation", "x = 0.7525", 1e-2) and not right("linear equation", "x = 0.753", 1e-2)
    assert right("arithmetic", "-8.25", 0)


def test_problems_of_no_type_are_judged_by_their_last_number() -> None:
    found = judge.judge(
        "How many clips?", "48/2 = 24. 48+24 = 72 clips.\n#### 72", "She sold 24. In total she sold 72 clips."
    )
    assert (found.kind, found.correct) == (problems.OTHER, True)
    assert judge.judge("How many?", "nothing to go by", "7").expected is None
    assert judge.judge("How many?", "#### 72", "between 1-72").answer == 72
    assert judge.judge("How many?", "#### 72", "release 1.2.72").answer is None


@given(
    st.sampled_from(["{}", "= {}", "答案是 {}。", "1 + 1 = {}", "\\boxed{{{}}}", "the answer is {}", "结果为：{} 克"]),
    st.decimals(-(10**9), 10**9, allow_nan=False, places=4),
    st.sampled_from(["{:f}", "{:,f}", "{:e}"]),
)
def test_a_number_is_read_as_it_was_written(sentence: str, number: Decimal, form: str) -> None:
    asked, solution = "计算 1 + 1 等于多少？", f"1 + 1 = {number:f}"
    said = sentence.format(form.format(number))
    found = judge.judge(asked, solution, said, 0)
    assert found.answer == number and found.correct, said
    assert not judge.judge(asked, solution, sentence.format(f"{number:f}7"), 1e-9).correct


@given(st.text(max_size=200), st.text(st.sampled_from("0123456789.,-+/*=eE×^()%√x 为是克\n？"), max_size=200))
def test_no_text_breaks_the_judge(text: str, numbers: str) -> None:
    for problem, _, solution in EACH:
        judge.judge(problem, solution, text)
        judge.judge(problem, solution, numbers)
    judge.judge(text, text, numbers)


def test_long_runs_of_digits_are_read_in_linear_time() -> None:
    for text in ("1" * 100_000, "1." * 50_000, "= 1" * 30_000, "1," * 50_000, "-" * 100_000, "1e" * 50_000):
        judge.judge(EACH[0][0], EACH[0][2], text)


def test_units_and_chinese_fractions() -> None:
    match = values.VALUE.search("3 分之 2 千克")
    assert match is not None and (value := values.read(match)) is not None
    assert value.in_row(values.UNIT_OF["mass"]).quantize(Decimal("0.01")) == Decimal("666.67")


def test_the_published_base_accuracies() -> None:
    file = os.environ.get("LLAMA3_CONTEST_ANSWERS")
    if not file:
        pytest.skip("LLAMA3_CONTEST_ANSWERS does not name the contest's published answers (JSON lines)")
    rows = [json.loads(line) for line in Path(file).read_text("utf-8").splitlines()]
    found = {tolerance: sum(each.correct for each in judge.score(rows, tolerance)) for tolerance in (1e-8, 1e-4, 1e-2)}
    assert found == {1e-8: 29, 1e-4: 31, 1e-2: 40} and len(rows) == 200
