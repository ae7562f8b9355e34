"""A vocabulary learnt from a text: 256 bytes, and the merges that byte-pair encoding finds in it."""

from __future__ import annotations

import base64
from pathlib import Path

from common.files import write_text
from common.tokenizer.vocabulary import BYTE_CHARACTERS, SPLIT_PATTERN


def learn(text: str, ranks: int) -> list[bytes]:
    """The tokens that byte-pair encoding learns from `text`, in the order of their ranks: bytes first, then merges."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

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


def write(tokens: list[bytes], file: Path) -> None:
    """Write the vocabulary as a tokenizer.model, in Llama 3's format."""
    lines = (f"{base64.b64encode(token).decode()} {rank}\n" for rank, token in enumerate(tokens))
    write_text(file, "".join(lines))
