"""Generated conversations for the data benchmarks: natural word frequencies, no row twice, no download.

Words are those of the given vocabulary (its order follows their frequency), drawn by Zipf's law; one
word in fifty is made of two others, so that a tokenizer's cache never holds them all.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from common.tokenizer import load

_ENDS = np.array([".", ".", ".", ",", "?", "!", ":", ""])


def words(tokenizer: Path) -> list[str]:
    """English and Chinese words of the vocabulary, in the order of their ids."""
    found = []
    for token in load(tokenizer).vocabulary.ranks:
        text = token.decode("utf-8", "ignore")
        if len(text) > 2 and text[0] == " " and text[1:].isalpha() and text.isascii():
            found.append(text[1:])
        elif len(text) > 1 and "\u4e00" <= text[0] <= "\u9fff" and text.isalpha():
            found.append(text)
    return found


def write(path: Path, count: int, tokenizer: Path, *, seed: int = 0, first: int = 0) -> int:
    """Write `count` conversations of two or four messages as JSON lines; returns the bytes written."""
    vocabulary = np.array(words(tokenizer), dtype=object)
    weights = 1.0 / (np.arange(len(vocabulary)) + 2.7)
    cumulative = np.cumsum(weights / weights.sum())
    with open(path, "w", encoding="utf-8") as file:
        for start in range(0, count, 10_000):
            rows = min(10_000, count - start)
            random = np.random.default_rng([seed, first + start])
            rounds = random.integers(1, 3, rows)
            lengths = np.clip(random.lognormal(3.6, 0.8, 2 * int(rounds.sum())), 4, 600).astype(int)
            total = int(lengths.sum())
            chosen = vocabulary[np.searchsorted(cumulative, random.random(total))]
            rare = random.random(total) < 0.02
            chosen[rare] = chosen[rare] + vocabulary[random.integers(0, len(vocabulary), int(rare.sum()))]
            marked = random.random(total) < 0.12
            chosen[marked] = chosen[marked] + _ENDS[random.integers(0, len(_ENDS), int(marked.sum()))]
            numbers = random.random(total) < 0.02
            chosen[numbers] = [str(n) for n in random.integers(0, 10_000, int(numbers.sum()))]
            cuts = np.cumsum(lengths)
            texts = [" ".join(part) for part in np.split(chosen, cuts[:-1])]
            at = 0
            for row in range(rows):
                messages = []
                for _ in range(int(rounds[row])):
                    messages.append({"role": "user", "content": texts[at]})
                    messages.append({"role": "assistant", "content": texts[at + 1]})
                    at += 2
                messages[0]["content"] = f"{first + start + row} {messages[0]['content']}"
                file.write(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")
    return path.stat().st_size
