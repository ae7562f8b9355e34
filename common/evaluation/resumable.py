"""Answers to many prompts that an interruption does not lose, whatever backend generates them.

A backend is a function from prompts (token ids) to new tokens, one list for each prompt in order, such as
`generate` of common.evaluation.transformers_backend or of common.frameworks.mindformers.generation with
the model put in (functools.partial). Standard library only: recipes' environments import this.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from common.errors import UserError

Generate = Callable[[list[list[int]]], list[list[int]]]
Progress = Callable[[int, int, float], None]
"""Called with answers so far, all of them, and answers a second of this start."""


class Journal:
    """Answers in the order in which they came, one JSON object a line, appended to a file.

    `identity` is whatever answers depend on besides the prompt: model, lengths, end tokens. An answer that
    was made under another identity does not count. A last line that a kill cut off is removed. For one
    process at a time. Raises UserError for a line before the last that is no answer.
    """

    def __init__(self, file: Path, identity: Any) -> None:
        self._identity = json.dumps(identity, sort_keys=True)
        self._found: dict[str, list[int]] = {}
        file.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(file, "a+b")  # noqa: SIM115 - closed by close()
        try:
            self._read(file)
        except BaseException:
            self._file.close()
            raise

    def _read(self, file: Path) -> None:
        self._file.seek(0)
        lines = self._file.read().split(b"\n")
        whole = sum(len(line) + 1 for line in lines[:-1])
        self._file.truncate(whole)
        for number, line in enumerate(lines[:-1], 1):
            try:
                row = json.loads(line)
                key, tokens = row["key"], row["tokens"]
                if not isinstance(key, str) or not all(isinstance(token, int) for token in tokens):
                    raise TypeError("tokens are no integers")
            except (ValueError, KeyError, TypeError) as error:
                hint = "remove the file: what it holds is then generated again"
                raise UserError("is no answer", file=file, line=number, found=str(error), hint=hint) from None
            self._found[key] = tokens

    def key(self, prompt: Sequence[int]) -> str:
        """The digest of the prompt under this identity."""
        return hashlib.sha256(f"{self._identity}\n{list(prompt)}".encode()).hexdigest()

    def get(self, prompt: Sequence[int]) -> list[int] | None:
        """The answer to `prompt`, where it is there."""
        return self._found.get(self.key(prompt))

    def add(self, prompts: Sequence[Sequence[int]], answers: Sequence[list[int]]) -> None:
        """Append the answers to `prompts`; they are on the disk when this returns."""
        for prompt, tokens in zip(prompts, answers, strict=True):
            key = self.key(prompt)
            self._found[key] = list(tokens)
            self._file.write(json.dumps({"key": key, "tokens": list(tokens)}).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def answer_all(
    prompts: Sequence[list[int]],
    generate: Generate,
    *,
    batch_size: int,
    journal: Journal | None = None,
    progress: Progress | None = None,
) -> list[list[int]]:
    """The answers to `prompts` in their order, generated in batches of like length, the longest first.

    Equal prompts are answered once: generation is greedy. With a journal, what it holds is not asked again.
    """
    known: dict[tuple[int, ...], list[int]] = {}
    if journal is not None:
        known = {tuple(prompt): found for prompt in prompts if (found := journal.get(prompt)) is not None}
    left = sorted({tuple(prompt): None for prompt in prompts if tuple(prompt) not in known}, key=len, reverse=True)
    started, before = time.monotonic(), len(known)
    for start in range(0, len(left), batch_size):
        batch = [list(prompt) for prompt in left[start : start + batch_size]]
        answers = generate(batch)
        if journal is not None:
            journal.add(batch, answers)
        known |= {tuple(prompt): list(found) for prompt, found in zip(batch, answers, strict=True)}
        if progress is not None:
            rate = (len(known) - before) / max(time.monotonic() - started, 1e-9)
            progress(len(known), before + len(left), rate)
    return [known[tuple(prompt)] for prompt in prompts]


def say(label: str, every: float = 10.0) -> Progress:
    """Progress as lines on standard error, at most one in `every` seconds, and the last."""
    said = time.monotonic()

    def progress(done: int, total: int, rate: float) -> None:
        nonlocal said
        if done == total or time.monotonic() - said >= every:
            said = time.monotonic()
            print(f"{label}: {done}/{total} answers, {rate:.2f} samples/s", file=sys.stderr, flush=True)

    return progress
