"""The prompts of the reading test: of each passage of a SQuAD file the first question, as the contest asks it.

    python reading_prompts.py --input dev-v1.1.json --tokenizer MODEL --output FILE.jsonl

A line is {"prompt", "prompt_ids", "references"}: the text, its ids with one begin-of-text token, all answers.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.cli import call
from common.data.questions import questions
from common.errors import UserError
from common.files import write_text
from common.tokenizer import load
from common.tokenizer.vocabulary import BEGIN_OF_TEXT


def rows(source: str, tokenizer_path: Path) -> Iterator[dict[str, Any]]:
    tokenizer = load(tokenizer_path)
    begin = tokenizer.special_id(BEGIN_OF_TEXT)
    for each in questions(source, "first"):
        ids = [begin, *tokenizer.encode(each["prompt"]).tolist()]
        yield {"prompt": each["prompt"], "prompt_ids": ids, "references": each["references"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--input", help="dev-v1.1.json, or another file of its layout; without it there is no test")
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.input is None:
        print("evaluate.reading is not set: there is no reading test, and no score")
        write_text(arguments.output, "")
        return
    lines = [json.dumps(row, ensure_ascii=False) for row in rows(arguments.input, arguments.tokenizer)]
    if not lines:
        raise UserError("holds no question", file=arguments.input)
    write_text(arguments.output, "".join(line + "\n" for line in lines))


if __name__ == "__main__":
    sys.exit(call(main))
