"""What must hold for every prepared row, whatever it was made from. A breach is our own fault, never the user's."""

from __future__ import annotations

import numpy as np

from common.data.options import Options
from common.data.packing import PackedRows
from common.data.templates import Template
from common.data.tokens import IGNORE
from common.errors import RunError, UserError
from common.tokenizer import Tokenizer
from common.tokenizer.vocabulary import BEGIN_OF_TEXT, RIGHT_PAD


class Contract:
    """Checks rows before they are written."""

    def __init__(self, template: Template, tokenizer: Tokenizer, options: Options) -> None:
        self.template = template
        self.bos = tokenizer.special_id(BEGIN_OF_TEXT)
        self.pad = tokenizer.special_id(options.pad)
        self.size = tokenizer.vocabulary_size
        self.length = options.max_length
        self.whole = options.packing != "concat" and options.on_long != "split"
        if self.pad == tokenizer.special_id(template.end):
            raise UserError(
                "the pad token is what ends an answer",
                found=options.pad,
                expected=f"another token, as {RIGHT_PAD}",
                hint="whoever masks the padding would mask the end of every answer",
            )

    def check(self, rows: PackedRows) -> None:
        """Raises RunError when a row breaks the contract."""
        if not len(rows):
            return
        if rows.ids.view(np.uint32).max() >= self.size:  # a negative id is a large one here
            raise RunError("an id outside the vocabulary", found=int(rows.ids.max()), expected=f"below {self.size}")
        if int(np.diff(rows.offsets).max()) > self.length:
            raise RunError("a row is too long", found=int(np.diff(rows.offsets).max()), expected=self.length)
        if (rows.ids == self.pad).any():
            raise RunError("a pad token inside a row", found=self.pad, expected="none")
        trained = np.logical_or.reduceat(rows.labels != IGNORE, rows.offsets[:-1])
        if not trained.all():
            raise RunError("a row trains nothing", found=int(np.argmin(trained)), expected="one label or more")
        begins = rows.positions == 0
        if rows.labels[begins].max() != IGNORE:
            raise RunError("the first token of a document is trained", expected=IGNORE)
        if self.whole and self.template.bos_per_row is not None:
            found = rows.ids == self.bos
            if not np.array_equal(found, begins):
                raise RunError("not exactly one begin-of-text token a document", expected="one, at position 0")
