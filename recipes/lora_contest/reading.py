"""Short passages of invented facts, with questions whose answers stand in them: the sample of the reading test.

    PYTHONPATH=. python recipes/lora_contest/reading.py --count 64 --seed 1 --output reading.json

The file has the layout of SQuAD v1.1. The facts are invented, so that nobody can know an answer: it has to be read.
"""

from __future__ import annotations

import argparse
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.cli import call
from common.files import write_json


def words(text: str) -> list[str]:
    return text.split()


PERSONS = words(
    "Abel Ada Alma Anton Bela Bruno Clara Dario Emil Enzo Felix Greta Hugo Igor Ines Jana Jonas Kira Lena Luca Mara "
    "Milo Nina Noah Olga Paula Rosa Sara Theo Timo Vera Zoe"
)
PLACES = words(
    "Almen Arlo Barden Belton Corvin Dalby Delmar Elston Gorby Harlow Ilmen Kelso Lorne Malden Norden Orley Perth "
    "Rimini Salem Selby Solano Tilden Torby Varna"
)
THINGS = words(
    "boat book box bread bridge car chair clock coat cup door horse house lamp map picture pot road spoon table tea "
    "tree wheel"
)
JOBS = words("baker builder cook doctor driver farmer painter reader sailor singer teacher writer")
COLOURS = words("black blue brown green grey red white yellow")
DAYS = words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
FACTS = (2, 4)  # of a passage: the tiny base model was taught with as many


@dataclass(frozen=True)
class Fact:
    sentence: str
    question: str
    answer: str
    """Words of the sentence."""
    asked: tuple[str, ...]
    """What the question asks for: no two facts of a passage share it."""


def fact(numbers: random.Random) -> Fact:
    """One fact, and a question about it."""
    who, place, thing = numbers.choice(PERSONS), numbers.choice(PLACES), numbers.choice(THINGS)
    count, age = str(numbers.randint(2, 99)), str(numbers.randint(2, 99))
    job, colour, day = numbers.choice(JOBS), numbers.choice(COLOURS), numbers.choice(DAYS)
    return numbers.choice(
        (
            Fact(f"{who} lives in {place}.", f"Where does {who} live?", place, ("home", who)),
            Fact(f"{who} was born in {place}.", f"Where was {who} born?", place, ("birth", who)),
            Fact(
                f"The first house of {place} was built by {who}.",
                f"Who built the first house of {place}?",
                who,
                ("built", place),
            ),
            Fact(f"{who} works as a {job}.", f"What does {who} work as?", job, ("job", who)),
            Fact(f"The {thing} belongs to {who}.", f"Who does the {thing} belong to?", who, ("owner", thing)),
            Fact(f"The {thing} of {who} is {colour}.", f"What colour is the {thing} of {who}?", colour, (thing, who)),
            Fact(f"{who} has {count} apples.", f"How many apples does {who} have?", count, ("count", who)),
            Fact(f"{who} came home on {day}.", f"When did {who} come home?", day, ("day", who)),
            Fact(f"The {thing} is {age} years old.", f"How old is the {thing}?", age, ("age", thing)),
        )
    )


def passage(numbers: random.Random) -> list[Fact]:
    """Facts whose questions have one answer each."""
    chosen: dict[tuple[str, ...], Fact] = {}
    wanted = numbers.randint(*FACTS)
    while len(chosen) < wanted:
        each = fact(numbers)
        chosen.setdefault(each.asked, each)
    return list(chosen.values())


def squad(count: int, seed: int) -> dict[str, Any]:
    """`count` passages in the layout of SQuAD v1.1, every fact asked for. The same seed gives the same passages."""
    numbers = random.Random(seed)
    paragraphs = []
    for number in range(count):
        facts = passage(numbers)
        context = " ".join(each.sentence for each in facts)
        numbers.shuffle(facts)  # the first question is the one that the contest asks
        questions = []
        for place, each in enumerate(facts):
            start = context.index(each.sentence) + each.sentence.rindex(each.answer)
            answers = [{"answer_start": start, "text": each.answer}]
            questions.append({"id": f"{number}-{place}", "question": each.question, "answers": answers})
        paragraphs.append({"context": context, "qas": questions})
    return {"version": "1.1", "data": [{"title": "Invented facts", "paragraphs": paragraphs}]}


def main() -> None:
    parser = argparse.ArgumentParser(description="Invented passages with questions, in the layout of SQuAD v1.1")
    parser.add_argument("--count", type=int, default=64, help="passages")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    write_json(arguments.output, squad(arguments.count, arguments.seed))


if __name__ == "__main__":
    sys.exit(call(main))
