"""Questions as the token ids that training data of the same template have before their answers."""

from __future__ import annotations

import json
from typing import Any

from common.data import layouts, records, templates
from common.data.tokens import Renderer
from common.errors import UserError
from common.tokenizer import Tokenizer


class PromptRenderer:
    """Renders prompts with the template's own rendering of training data.

    `system` is the system message of conversations without one. `source` is the layout that the
    training data had: questions of Alpaca's stand in Alpaca's prompt.
    """

    def __init__(
        self, tokenizer: Tokenizer, template: str, *, system: str | None = None, source: str | None = None
    ) -> None:
        self._template = templates.get(template)
        self._system = system
        self._wrapped = source == layouts.Alpaca.name
        self._renderer = Renderer(self._template, tokenizer)
        self.end_id: int = tokenizer.special_id(self._template.end)
        """The token that ends an answer."""

    def question(self, text: str) -> list[int]:
        """One question without anything before it."""
        return self._ids([(records.USER, layouts.alpaca_prompt(text) if self._wrapped else text)])

    def conversation(self, messages: list[Any]) -> list[int]:
        """Messages of role and content, the user's last. Raises UserError for anything else."""
        return self._ids([_turn(each) for each in messages])

    def _ids(self, turns: layouts.Turns) -> list[int]:
        # What stands before the last answer does not depend on the answer: any will do
        batch = records.from_turns([[*turns, (records.ASSISTANT, ".")]], [0])
        if self._system is not None:
            batch = batch.with_system(self._system)
        _, odd, problems = records.check(batch)
        if problems or odd.any():
            found, expected = (problems[0].found, problems[0].expected) if problems else (None, None)
            raise UserError("not a conversation that ends with a question", found=found, expected=expected)
        rows = self._renderer.render(batch)
        prompt: list[int] = rows.ids[: int(rows.prompt[0])].tolist()
        return prompt


def _turn(message: Any) -> tuple[int, str]:
    role = message.get("role") if isinstance(message, dict) else None
    content = message.get("content") if isinstance(message, dict) else None
    if role not in records.ROLES or not isinstance(content, str):
        found = json.dumps(message, ensure_ascii=False)[:80]
        expected = '{"role": "system", "user" or "assistant", "content": TEXT}'
        raise UserError("is no message", found=found, expected=expected)
    return records.ROLES[role], content
