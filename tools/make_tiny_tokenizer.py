"""Make common/tokenizer/tiny.model: 256 bytes and the merges that a page of our own text teaches.

Run it as `python -m tools.make_tiny_tokenizer`; it gives the same file every time.
"""

from __future__ import annotations

import base64
from pathlib import Path

import typer
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

from common.cli import call
from common.files import write_text
from common.tokenizer import TINY
from common.tokenizer.vocabulary import BYTE_CHARACTERS, SPLIT_PATTERN

TEXT = Path(__file__).with_name("tiny_tokenizer_text.txt")
RANKS = 1024  # with the 256 special tokens: a vocabulary of 1,280


def learn(text: str, ranks: int = RANKS) -> list[bytes]:
    """The tokens that byte-pair encoding learns from `text`, in the order of their ranks: bytes first, then merges."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=ranks, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(text.splitlines(keepends=True), trainer)
    byte_of = {character: byte for byte, character in BYTE_CHARACTERS.items()}
    ordered = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return [bytes(byte_of[character] for character in token) for token, _ in ordered]


def main(output: Path = TINY) -> None:
    """Write the vocabulary to OUTPUT."""
    tokens = learn(TEXT.read_text(encoding="utf-8"))
    lines = (f"{base64.b64encode(token).decode()} {rank}\n" for rank, token in enumerate(tokens))
    write_text(output, "".join(lines))


if __name__ == "__main__":
    raise SystemExit(call(lambda: typer.run(main)))
