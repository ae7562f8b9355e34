"""Make common/tokenizer/tiny.model: 256 bytes and the merges that a page of our own text teaches.

Run it as `python -m tools.make_tiny_tokenizer`; it gives the same file every time.
"""

from __future__ import annotations

from pathlib import Path

import typer

from common.cli import call
from common.tokenizer import TINY
from common.tokenizer.learn import learn, write

TEXT = Path(__file__).with_name("tiny_tokenizer_text.txt")
RANKS = 1024  # with the 256 special tokens: a vocabulary of 1,280


def main(output: Path = TINY) -> None:
    """Write the vocabulary to OUTPUT."""
    write(learn(TEXT.read_text(encoding="utf-8"), RANKS), output)


if __name__ == "__main__":
    raise SystemExit(call(lambda: typer.run(main)))
