"""Prompts to token ids, exactly as training had them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.data import layouts, records, templates
from common.data.tokens import Renderer
from common.errors import UserError
from common.tokenizer import Tokenizer
from common.tokenizer.vocabulary import BEGIN_OF_TEXT

Turns = list[tuple[int, str]]
LINE = 'a text, {"prompt": TEXT}, {"messages": [{"role", "content"}, ...]} or {"prompt_ids": [...]}'


@dataclass(frozen=True)
class Prompt:
    shown: str
    """As it was given."""
    ids: list[int]


class Asker:
    """Turns questions into the ids of a prompt, with the template's own rendering of training data.

    `system` is the system message of conversations without one. `source` is the layout that the
    training data had: questions of Alpaca's stand in Alpaca's prompt.
    """

    def __init__(
        self, tokenizer: Tokenizer, template: str, *, system: str | None = None, source: str | None = None
    ) -> None:
        self.tokenizer = tokenizer
        self.template = templates.get(template)
        self.system = system
        self.wrapped = source == layouts.Alpaca.name
        self._renderer = Renderer(self.template, tokenizer)

    @property
    def end_id(self) -> int:
        """The token that ends an answer."""
        return self.tokenizer.special_id(self.template.end)

    def question(self, text: str) -> Prompt:
        """One question without anything before it."""
        asked = layouts.alpaca_prompt(text) if self.wrapped else text
        return Prompt(text, self._ids([(records.USER, asked)]))

    def conversation(self, turns: Turns) -> Prompt:
        """A conversation that ends with the user's turn."""
        ids = self._ids(turns)
        return Prompt(self.tokenizer.decode(ids), ids)

    def _ids(self, turns: Turns) -> list[int]:
        # What stands before the last answer does not depend on the answer: any will do
        batch = records.from_turns([[*turns, (records.ASSISTANT, ".")]], [0])
        if self.system is not None:
            batch = batch.with_system(self.system)
        _, odd, problems = records.check(batch)
        if problems or odd.any():
            found, expected = (problems[0].found, problems[0].expected) if problems else (None, None)
            raise UserError("not a conversation that ends with a question", found=found, expected=expected)
        rows = self._renderer.render(batch, parallel=False)
        prompt: list[int] = rows.ids[: int(rows.prompt[0])].tolist()
        return prompt


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
            yield _from_value(tokenizer, asker, json.loads(line))
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
        return asker.conversation([_turn(each) for each in value["messages"]])
    raise UserError("is no prompt", found=json.dumps(value, ensure_ascii=False)[:80], expected=LINE)


def _turn(message: Any) -> tuple[int, str]:
    role = message.get("role") if isinstance(message, dict) else None
    content = message.get("content") if isinstance(message, dict) else None
    if role not in records.ROLES or not isinstance(content, str):
        found = json.dumps(message, ensure_ascii=False)[:80]
        raise UserError(
            "is no message", found=found, expected='{"role": "system", "user" or "assistant", "content": TEXT}'
        )
    return records.ROLES[role], content
