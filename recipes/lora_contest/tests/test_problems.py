"""Invented problems and passages: of the contest's types, right, and the same every time."""

from __future__ import annotations

import json
import random
from fractions import Fraction

import generate
import pytest
import reading
from conftest import RECIPE

from common.evaluation import judge, problems


@pytest.mark.parametrize("level", generate.LEVELS)
def test_problems_are_of_all_eleven_types_and_the_judge_accepts_their_solutions(level: str) -> None:
    made = list(generate.generate(level, 20, 3))
    assert {problems.kind(each.problem) for each in made} == set(problems.KINDS)
    for each in made:
        assert judge.judge(each.problem, each.solution, each.solution, 1e-9).correct, each


@pytest.mark.parametrize("kind", generate.MAKERS)
def test_makers_have_the_names_of_the_types(kind: str) -> None:
    assert problems.kind(generate.MAKERS[kind](random.Random(1), False).problem) == kind


def test_results_are_right() -> None:
    """Worked out a second time, with other arithmetic, from the words of the problem."""
    checked = set()
    for each in generate.generate("easy", 30, 5):
        found = problems.find(each.problem)
        assert found is not None
        numbers = [Fraction(number) for number in found.numbers]
        answer = judge.judge(each.problem, each.solution, each.solution).answer
        expected = {
            "area": lambda n: n[0] * n[1],
            "mass": lambda n: n[0] * n[1],
            "mean": lambda n: sum(n) / len(n),
            "discount": lambda n: (n[0] - n[1]) / n[0] * 100,
            "sales": lambda n: n[0] * (100 + n[1]) / 100,
            "power": lambda n: n[0] ** int(n[1]),
            "fraction": lambda n: n[0] / n[1],
        }.get(found.kind)
        if expected is not None and answer is not None:
            checked.add(found.kind)
            assert abs(Fraction(str(answer)) - expected(numbers)) < Fraction(1, 10**9), each
    assert len(checked) == 7


def test_the_bundled_samples_are_the_generators() -> None:
    rows = [json.loads(line) for line in (RECIPE / "samples" / "problems.jsonl").read_text("utf-8").splitlines()]
    made = [{"problem": each.problem, "solution": each.solution} for each in generate.generate("easy", 80, 1)]
    assert rows == made
    assert json.loads((RECIPE / "samples" / "reading.json").read_text("utf-8")) == reading.squad(64, 2)


def test_answers_stand_in_their_passages() -> None:
    for paragraph in reading.squad(50, 9)["data"][0]["paragraphs"]:
        assert len({question["question"] for question in paragraph["qas"]}) == len(paragraph["qas"])
        for question in paragraph["qas"]:
            (answer,) = question["answers"]
            start = answer["answer_start"]
            assert paragraph["context"][start : start + len(answer["text"])] == answer["text"]
