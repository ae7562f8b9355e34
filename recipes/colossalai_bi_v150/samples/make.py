"""Writes train.jsonl and eval.jsonl beside this file: arithmetic problems in the layout of school_math.

    python make.py

Every problem is made of the sentences below and numbers from a seed; none is anybody else's.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

NAMES = ("小红", "小明", "李老师", "王阿姨", "小华", "张叔叔")
THINGS = (("苹果", "个"), ("铅笔", "支"), ("故事书", "本"), ("气球", "个"), ("邮票", "张"))


def boxes(random_: random.Random) -> tuple[str, str]:
    who, (thing, unit) = random_.choice(NAMES), random_.choice(THINGS)
    count, each, given = random_.randint(2, 9), random_.randint(5, 20), random_.randint(1, 9)
    total = count * each
    question = f"{who}有{count}盒{thing}，每盒{each}{unit}，送给同学{given}{unit}，还剩多少{unit}？"
    return (
        question,
        f"一共有{count}×{each}={total}{unit}。还剩{total}-{given}={total - given}{unit}。答案是{total - given}。",
    )


def price(random_: random.Random) -> tuple[str, str]:
    who, (thing, unit) = random_.choice(NAMES), random_.choice(THINGS)
    cost, count = random_.randint(2, 9), random_.randint(2, 9)
    paid = cost * count + random_.randint(1, 20)
    question = f"一{unit}{thing}{cost}元，{who}买{count}{unit}，付了{paid}元，应找回多少元？"
    total = cost * count
    return question, f"花了{cost}×{count}={total}元。找回{paid}-{total}={paid - total}元。答案是{paid - total}。"


def speed(random_: random.Random) -> tuple[str, str]:
    fast, hours = random_.randint(40, 90), random_.randint(2, 6)
    question = f"一辆汽车每小时行{fast}千米，{hours}小时行多少千米？"
    return question, f"行了{fast}×{hours}={fast * hours}千米。答案是{fast * hours}。"


def share(random_: random.Random) -> tuple[str, str]:
    who, (thing, unit) = random_.choice(NAMES), random_.choice(THINGS)
    people, each = random_.randint(2, 8), random_.randint(2, 12)
    question = f"{who}把{people * each}{unit}{thing}平均分给{people}个人，每人分到多少{unit}？"
    return question, f"每人分到{people * each}÷{people}={each}{unit}。答案是{each}。"


KINDS = (boxes, price, speed, share)


def rows(count: int, random_: random.Random, seen: set[str]) -> list[str]:
    """`count` conversations as JSON lines; every fifth has two rounds. No question is asked twice."""
    lines: list[str] = []
    while len(lines) < count:
        rounds = []
        for _ in range(2 if len(lines) % 5 == 4 else 1):
            question, answer = random_.choice(KINDS)(random_)
            rounds.append({"human": question, "assistant": answer})
        if any(each["human"] in seen for each in rounds):
            continue
        seen.update(each["human"] for each in rounds)
        lines.append(json.dumps({"conversation": rounds, "category": "school math"}, ensure_ascii=False))
    return lines


def main() -> None:
    random_, seen = random.Random(7), set[str]()
    for name, count in (("train", 96), ("eval", 12)):
        text = "".join(line + "\n" for line in rows(count, random_, seen))
        (Path(__file__).parent / f"{name}.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
