"""Prompts for evaluation, cut from the very rows that training data of the same template are made of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from common.data.templates import Content, Template
from common.data.tokens import TokenRows
from common.files import write_text
from common.tokenizer import Tokenizer


class PromptWriter:
    """Collects the first `count` conversations: everything before the last answer, and that answer."""

    def __init__(self, tokenizer: Tokenizer, template: Template, count: int) -> None:
        self.tokenizer = tokenizer
        self.count = count
        self.prompts: list[dict[str, Any]] = []
        answers = [piece for piece in template.assistant if isinstance(piece, Content)]
        self._before = answers[0].before if answers else ""
        self._end = tokenizer.special_id(template.end)

    def add(self, rows: TokenRows) -> None:
        """Take rows until there are enough; a row whose answer was cut off is passed over."""
        for row in range(len(rows)):
            if len(self.prompts) >= self.count:
                return
            ids = rows.ids[rows.offsets[row] : rows.offsets[row + 1]]
            prompt = int(rows.prompt[row])
            if ids[-1] != self._end or prompt >= len(ids):
                continue
            self.prompts.append(
                {
                    "prompt": self.tokenizer.decode(ids[:prompt]),
                    "prompt_ids": ids[:prompt].tolist(),
                    "reference": self.tokenizer.decode(ids[prompt:-1]).removeprefix(self._before),
                }
            )

    def write(self, path: Path) -> None:
        """Write them as JSON lines."""
        write_text(path, "".join(json.dumps(prompt, ensure_ascii=False) + "\n" for prompt in self.prompts))
