"""The tokenizer files of a model folder: written for a vocabulary, checked against the model's config."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from common import tokenizer as tokenizers
from common.errors import UserError
from common.tokenizer.vocabulary import BEGIN_OF_TEXT, END_OF_TEXT, END_OF_TURN, RIGHT_PAD
from common.weights.config import LlamaConfig

BASE, INSTRUCT = "base", "instruct"
KINDS = (BASE, INSTRUCT)
NAMES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "tokenizer.model",
    "chat_template.jinja",
    "added_tokens.json",
)

# Llama 3's chat format (Meta's model card): a header with the role, the trimmed text, <|eot_id|>.
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}"
    "{{ message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)


def end_token(kind: str) -> str:
    """The token that ends a generation: a text's end in a base model, a turn's in an instruct model."""
    return END_OF_TURN if kind == INSTRUCT else END_OF_TEXT


def special_ids(vocabulary: Path, kind: str) -> tuple[int, int, int, int]:
    """(vocabulary size, bos id, eos id, pad id) of the tokenizer in `vocabulary` for a model of `kind`."""
    loaded = tokenizers.load(vocabulary)
    bos, eos, pad = (loaded.special_id(name) for name in (BEGIN_OF_TEXT, end_token(kind), RIGHT_PAD))
    return loaded.vocabulary_size, bos, eos, pad


def write(vocabulary: Path, folder: Path, kind: str) -> None:
    """Write the tokenizer files for `vocabulary` into `folder`; an instruct model has a chat template."""
    template = CHAT_TEMPLATE if kind == INSTRUCT else None
    tokenizers.write_hugging_face(
        vocabulary, folder, eos_token=end_token(kind), pad_token=RIGHT_PAD, chat_template=template
    )


def check(folder: Path, config: LlamaConfig) -> None:
    """Check that every id of the tokenizer in `folder` fits the model, and that the special ids agree.

    A folder without a tokenizer passes. Raises UserError for ids beyond the embedding, or when
    config's bos, eos or pad is an ordinary token or another special token than the tokenizer's.
    """
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
        return
    loaded = tokenizers.load(folder)
    size = loaded.vocabulary_size
    if size > config.vocab_size:
        raise UserError(
            "the tokenizer has ids that the model's embedding has no row for",
            file=folder,
            found=f"{size} ids",
            expected=f"at most vocab_size, {config.vocab_size}",
            hint="give the tokenizer that belongs to the model",
        )
    names = {number: name for name, number in loaded.special.items()}
    wanted = [("bos_token_id", config.bos_token_id, BEGIN_OF_TEXT)]
    wanted += [("eos_token_id", number, "a special token") for number in config.eos_token_ids]
    if config.pad_token_id is not None:
        wanted.append(("pad_token_id", config.pad_token_id, "a special token"))
    for key, number, expected in wanted:
        name = names.get(number)
        if name is None or (expected == BEGIN_OF_TEXT and name != expected):
            found = f"{key} {number}, in the tokenizer {name or 'no special token'}"
            raise UserError("config.json and the tokenizer disagree", file=folder, found=found, expected=expected)


def kind_of(config: LlamaConfig, vocabulary: Path) -> str:
    """The kind of model that `config` describes: instruct when one of its eos ids is <|eot_id|>."""
    end = tokenizers.load(vocabulary).special.get(END_OF_TURN)
    return INSTRUCT if end in config.eos_token_ids else BASE


def with_special_ids(config: LlamaConfig, vocabulary: Path, kind: str) -> LlamaConfig:
    """`config` with the special ids of the tokenizer in `vocabulary`, for a model of `kind`."""
    _, bos, eos, pad = special_ids(vocabulary, kind)
    return replace(config, bos_token_id=bos, eos_token_id=eos, pad_token_id=pad)
