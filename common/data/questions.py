"""Questions about passages as prompts for evaluation, each with its reference answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.data import sources
from common.data.layouts import RecordError, Squad
from common.data.parse import values
from common.data.pipeline import read_blocks
from common.errors import UserError
from common.files import write_text

SELECT = ("first", "all")


def questions(input: str, select: str) -> Iterator[dict[str, Any]]:
    """Rows of id, prompt, label (the first answer) and references (all), in the order of the file.

    first: the first question of each paragraph, as the contest's reading test takes them. all: every question.
    Raises UserError for what is not of SQuAD's layout.
    """
    layout = Squad()
    for block in read_blocks(sources.probe(sources.local(input), Squad.name)):
        for number, value in enumerate(values(block, layout), 1):
            try:
                if isinstance(value, RecordError):
                    raise value
                asked = layout.questions(value)
            except RecordError as error:
                problem = f"article {number}: {error.problem}"
                raise UserError(problem, file=block.file, found=error.found, expected=error.expected) from None
            for each in asked:
                if each.first or select == "all":
                    row = {"prompt": each.prompt, "label": each.answers[0], "references": each.answers}
                    yield row if each.id is None else {"id": each.id, **row}


def write(input: str, select: str, output: Path | None) -> int:
    """Write the rows as JSON lines to `output`, or to standard output; how many there were."""
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in questions(input, select)]
    if not lines:
        raise UserError("holds no question", file=input)
    if output is None:
        print("".join(lines), end="")
    elif Path(input).exists() and output.resolve() == Path(input).resolve():
        raise UserError("the output is the input", file=output, hint="choose another output")
    else:
        write_text(output, "".join(lines))
    return len(lines)
