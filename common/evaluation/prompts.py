"""Prompts to token ids, exactly as training had them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from common.data.asking import PromptRenderer
from common.errors import UserError
from common.tokenizer import Tokenizer
from common.tokenizer.vocabulary import BEGIN_OF_TEXT

LINE = 'a text, {"prompt": TEXT}, {"messages": [{"role", "content"}, ...]} or {"prompt_ids": [...]}'


@dataclass(frozen=True)
class Prompt:
    shown: str
    """As it was given."""
    ids: list[int]
    row: dict[str, Any] = field(default_factory=dict)
    """What else stood in its row: id, label, ..."""


class Asker:
    """Turns questions into prompts rendered as training data are, and keeps how each was given."""

    def __init__(
        self, tokenizer: Tokenizer, template: str, *, system: str | None = None, source: str | None = None
    ) -> None:
        self.tokenizer = tokenizer
        self._renderer = PromptRenderer(tokenizer, template, system=system, source=source)

    @property
    def end_id(self) -> int:
        """The token that ends an answer."""
        return self._renderer.end_id

    def question(self, text: str) -> Prompt:
        """One question without anything before it."""
        return Prompt(text, self._renderer.question(text))

    def conversation(self, messages: list[Any]) -> Prompt:
        """A conversation that ends with the user's turn."""
        ids = self._renderer.conversation(messages)
        return Prompt(self.tokenizer.decode(ids), ids)


def raw(tokenizer: Tokenizer, text: str) -> Prompt:
    """`text` as it is, after one begin-of-text token; names of control tokens in it are these tokens."""
    names = "|".join(re.escape(name) for name in sorted(tokenizer.special, key=len, reverse=True))
    ids: list[int] = []
    for part in re.split(f"({names})", text):
        ids += [tokenizer.special[part]] if part in tokenizer.special else tokenizer.encode(part).tolist()
    begin = tokenizer.special_id(BEGIN_OF_TEXT)
    return Prompt(text, ids if ids[:1] == [begin] else [begin, *ids])


def from_text(tokenizer: Tokenizer, asker: Asker | None, text: str) -> Prompt:
    """A prompt from one text; raw where there is no asker. Raises UserError for an empty one."""
    if not text.strip():
        raise UserError("the prompt is empty", expected="a text")
    return asker.question(text) if asker else raw(tokenizer, text)


def from_file(tokenizer: Tokenizer, asker: Asker | None, file: Path) -> Iterator[Prompt]:
    """The prompts of a JSON-lines file, such as RUN/data/eval/prompts.jsonl.

    Raises UserError that names the line for anything else than a text, a prompt, messages or ids.
    """
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            row = value if isinstance(value, dict) else {}
            others = {name: each for name, each in row.items() if name not in ("prompt", "prompt_ids", "messages")}
            yield replace(_from_value(tokenizer, asker, value), row=others)
        except json.JSONDecodeError as error:
            raise UserError("is not JSON", file=file, line=number, found=str(error), expected=LINE) from None
        except UserError as error:
            raise UserError(
                error.problem, file=file, line=number, found=error.found, expected=error.expected, hint=error.hint
            ) from None


def _from_value(tokenizer: Tokenizer, asker: Asker | None, value: Any) -> Prompt:
    if isinstance(value, str):
        return from_text(tokenizer, asker, value)
    if isinstance(value, dict) and isinstance(value.get("prompt_ids"), list):
        ids = value["prompt_ids"]
        if not ids or not all(isinstance(each, int) and 0 <= each < tokenizer.vocabulary_size for each in ids):
            raise UserError(
                "prompt_ids are not ids of the vocabulary", expected=f"0 to {tokenizer.vocabulary_size - 1}"
            )
        shown = value.get("prompt")
        return Prompt(shown if isinstance(shown, str) else tokenizer.decode(ids), ids)
    if isinstance(value, dict) and isinstance(value.get("prompt"), str):
        return from_text(tokenizer, asker, value["prompt"])
    if isinstance(value, dict) and isinstance(value.get("messages"), list):
        if asker is None:
            raise UserError("messages need a template", hint="leave out --raw")
        return asker.conversation(value["messages"])
    raise UserError("is no prompt", found=json.dumps(value, ensure_ascii=False)[:80], expected=LINE)
