"""Whether an answer to a problem of the contest is right: its final number is the solution's, within a tolerance.

The contest publishes no script, only the rule that the numeric result equals the correct answer. Here

- the answer is what the text states last as its result: marked as the answer, after an equals sign or a
  word for it, or alone on a line. What a model rambles on after its answer (another exercise, a cut-off
  line) states nothing. A number is read whole, never a prefix or a part of it.
- the tolerance is absolute, on the two sides of the problem's own equation with the answer put in: on the
  result for a calculation, on ax + b for an equation ax + b = 0.
- a quotient of the problem's own numbers is the question again, not its result.

Standard library only: recipes' environments import this.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Context, Decimal, localcontext

from common.evaluation import problems, values
from common.evaluation.problems import OTHER, Problem
from common.evaluation.values import VALUE, Value

TOLERANCE = 1e-2  # at which the contest's published base accuracy, 20 %, comes out

# A full stop after a number or a capital may be that of a list: 2. or B.
_SENTENCE_END = re.compile(r"[\n。；;！!?？]|(?<![\dA-Z])\.(?=\s|$)")
_APART = r"\s*(?:约为|约是|约|大约|大概|about|approximately|roughly|[_`¥￥(]|\s)*"
_LINK = re.compile(
    r"(?:=|≈|约等于|等于|得到|得出|得|(?:为|是)\s*[:：]?|[:：]|\b(?:equals|is|are|was|be|get|gives|obtain)\b)" + _APART,
    re.IGNORECASE,
)
_MARK = re.compile(
    r"(?:答案|\banswer)\s*(?:应该?|就)?\s*(?:is|为|是|等于|[:：=])?"
    + _APART
    + r"|####\s*|\\boxed\s*\{\s*(?:x\s*=\s*)?",
    re.IGNORECASE,
)
# "8 - 3" and "8-3" go on; in "8 -3" another number begins
_GOES_ON = re.compile(r"\s*[*×÷^/+]\s*(?:[\dx(√]|$)|(?:-|\s+-\s+)(?:[\dx(√]|$)|[A-Za-z\\]")
_NEAR = 200  # characters before a number in which what it is of stands
_UNKNOWN = re.compile(r"(?:(?<![A-Za-z0-9)*/^+-])x|解|根|答案|结果|值|solution|answer|root)$", re.IGNORECASE)
_SAID = re.compile(r"(?:解|根|答案|solution|answer|root)$", re.IGNORECASE)
_GIVEN = re.compile(r"(?:长|长度|宽|宽度|密度|体积|原价|价格|售价|去年的?销售额|(?<![A-Za-z])x)$")
_BOLD = re.compile(r"(?<![\w)])\*\*|\*\*(?![\w(])")
_RESPONSE = re.compile(r"^\s*#+\s*Response\s*[:：]", re.IGNORECASE)


@dataclass(frozen=True)
class Judgement:
    """What became of one answer."""

    kind: str
    """The type of the problem, or OTHER."""
    expected: Decimal | None
    """None where the solution holds no number: nothing is right then."""
    answer: Decimal | None
    """None where the text states no result."""
    correct: bool


@dataclass(frozen=True)
class _Statement:
    value: Value
    explicit: bool
    """Said to be the answer, and not an equality in a working."""
    marked: bool
    """With a mark of its own, which counts before everything else."""


def judge(problem: str, solution: str, prediction: str, tolerance: float = TOLERANCE) -> Judgement:
    """Compare `prediction` with `solution`; `problem` may stand in a prompt, and be repeated in the prediction."""
    asked = problems.find(problem)
    row = values.UNIT_OF.get(asked.kind) if asked else None
    kind = asked.kind if asked else OTHER
    reference = _reference(solution)
    if reference is None:
        return Judgement(kind, None, None, False)
    expected = reference.in_row(row)
    stated = _final(asked, problem, prediction, reference)
    if stated is None:
        return Judgement(kind, expected, None, False)
    answer = stated.in_row(row)
    with localcontext(Context(prec=values.DIGITS)):
        if stated.unit == "%" and kind != "discount" and reference.unit != "%":
            answer = answer / 100
        scale = Decimal(str(abs(asked.coefficient))) if asked and asked.coefficient else Decimal(1)
        correct = abs(answer - expected) * scale <= Decimal(str(tolerance))
    return Judgement(kind, expected, answer, correct)


def accuracies(judged: Iterable[Judgement]) -> dict[str, tuple[int, int]]:
    """Correct answers and all of them for each type that occurs, in the order of the types."""
    counts: dict[str, list[int]] = {}
    for each in judged:
        count = counts.setdefault(each.kind, [0, 0])
        count[0] += each.correct
        count[1] += 1
    order = [*problems.KINDS, OTHER]
    return {kind: (counts[kind][0], counts[kind][1]) for kind in order if kind in counts}


def score(rows: Iterable[Mapping[str, str]], tolerance: float = TOLERANCE) -> list[Judgement]:
    """One judgement for each row of problem, solution, prediction."""
    return [judge(row["problem"], row["solution"], row["prediction"], tolerance) for row in rows]


def _reference(solution: str) -> Value | None:
    text = values.tidy(solution)
    stated = list(_statements(text, None))
    if stated:
        return (next((each for each in reversed(stated) if each.marked), stated[-1])).value
    return _last_number(text)


def _final(asked: Problem | None, problem: str, prediction: str, reference: Value) -> Value | None:
    """The result that `prediction` states."""
    for part in _without_echo(asked.text if asked else problem.strip(), problem.strip(), prediction):
        text = values.tidy(part)
        alone = len([line for line in text.splitlines() if line.strip()]) == 1
        stated = [each for each in _statements(text, asked) if _counts(each, asked, reference, alone)]
        if stated:
            return (next((each for each in reversed(stated) if each.marked), stated[-1])).value
        if asked is None and (found := _last_number(text)):
            return found
    return None


def _last_number(text: str) -> Value | None:
    found = [value for match in VALUE.finditer(text) if (value := values.read(match))]
    return found[-1] if found else None


def _without_echo(asked: str, prompt: str, prediction: str) -> tuple[str, ...]:
    """What may hold the answer, first to last: the text without the problem or the prompt before it."""
    if prompt and prediction.strip().startswith(prompt):
        return (_RESPONSE.sub("", prediction.strip()[len(prompt) :]),)
    before, found, after = prediction.partition(asked) if asked else (prediction, "", "")
    return (before, _RESPONSE.sub("", after)) if found else (prediction,)


def _statements(text: str, asked: Problem | None) -> Iterator[_Statement]:
    """The results that a text states, up to where it goes on to another exercise."""
    text = _BOLD.sub("", text)
    start, any_stated = 0, False
    for end in [*_SENTENCE_END.finditer(text), None]:
        sentence = text[start : end.start() if end else len(text)]
        start = end.end() if end else len(text)
        another = (end is not None and end[0] in "?？") or problems.find(sentence) is not None
        if another or (any_stated and "###" in sentence and "####" not in sentence):
            if any_stated:
                return
            continue
        for statement in _of_sentence(sentence, asked):
            any_stated = True
            yield statement


def _of_sentence(sentence: str, asked: Problem | None) -> Iterator[_Statement]:
    for mark in _MARK.finditer(sentence):
        if value := _value_at(sentence, mark.end()):
            yield _Statement(value, explicit=True, marked=True)
    for link in _LINK.finditer(sentence):
        before = sentence[max(0, link.start() - _NEAR) : link.start()].rstrip(" *_`的")
        if _is_of_result(before, link[0], asked) and (value := _value_at(sentence, link.end())):
            yield _Statement(value, explicit=bool(_SAID.search(before)), marked=False)
    alone = VALUE.fullmatch(sentence.strip(" \t*_`().￥¥="))
    if alone and (value := values.read(alone)):
        yield _Statement(value, explicit=False, marked=False)


def _value_at(sentence: str, place: int) -> Value | None:
    """The value at a place of a sentence; None where an expression that is not worked out goes on from there."""
    match = VALUE.match(sentence, place)
    if match is None or _GOES_ON.match(sentence, match.end()):
        return None
    return values.read(match)


def _is_of_result(before: str, link: str, asked: Problem | None) -> bool:
    """Whether what stands before a link is the result, and not something given or on the way."""
    if asked is None:
        return True
    if asked.kind != "linear equation":
        return not _GIVEN.search(before)
    clause = re.split(r"[，,：:]", before)[-1]
    first = clause.split("=")[0].strip() if link.strip()[:1] in "=≈" else before
    return not first or bool(_UNKNOWN.search(re.sub(r"(?<=[-+*/^)\d])\s+(?=x$)", "", first)))


def _counts(statement: _Statement, asked: Problem | None, reference: Value, alone: bool) -> bool:
    """Whether a fraction is a result: a quotient of the problem's own numbers is the question again."""
    quotient = statement.value.quotient
    if quotient is None or asked is None or quotient == reference.quotient:
        return True
    if asked.kind == "fraction" and not _in_lowest_terms(quotient):
        return False
    given = {Decimal(number) for number in asked.numbers}
    if not {Decimal(number) for number in quotient} <= given:
        return True
    if asked.kind == "linear equation":  # x = 1/2 is a solution, and in a working a step on the way to it
        return statement.explicit or alone
    return False


def _in_lowest_terms(quotient: tuple[str, str]) -> bool:
    if not all(number.isdecimal() and len(number) < 100 for number in quotient):
        return False
    return math.gcd(*(int(number) for number in quotient)) == 1
