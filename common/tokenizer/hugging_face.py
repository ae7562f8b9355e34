"""A Llama 3 vocabulary as Hugging Face's tokenizer files."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from typing import Any

from common.errors import UserError, did_you_mean
from common.files import write_json, write_text
from common.tokenizer import vocabulary
from common.tokenizer.vocabulary import BEGIN_OF_TEXT, SPLIT_PATTERN, Vocabulary

_MODEL_MAX_LENGTH = 131072  # the longest context of any Llama 3; what trains shorter sets its own


def tokenizer_json(content: Vocabulary, *, special: bool = True) -> str:
    """The text of a tokenizer.json; without `special`, one that knows ordinary tokens only."""
    added = content.special if special else {}
    tokens, names = content.by_rank()
    whole = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(name, number) for name, number in added.items()],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": SPLIT_PATTERN}, "behavior": "Isolated", "invert": False},
                _byte_level(use_regex=False, add_prefix_space=False),
            ],
        },
        "post_processor": _begin_with(BEGIN_OF_TEXT, added[BEGIN_OF_TEXT]) if BEGIN_OF_TEXT in added else None,
        "decoder": _byte_level(use_regex=True, add_prefix_space=True),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            # A word that is a token is that token, even where no chain of merges leads to it.
            "ignore_merges": True,
            "vocab": {name: content.ranks[token] for token, name in zip(tokens, names, strict=True)},
            # "left right" in one string: releases of tokenizers before 0.20 read nothing else.
            "merges": content.merges(tokens, names),
        },
    }
    return json.dumps(whole, ensure_ascii=False)


def write_hugging_face(
    tokenizer_model: Path, folder: Path, *, eos_token: str, pad_token: str, chat_template: str | None
) -> None:
    """Write tokenizer.json, tokenizer_config.json, special_tokens_map.json and tokenizer.model into `folder`.

    transformers' AutoTokenizer then gives the same ids as `common.tokenizer.load`, with
    `<|begin_of_text|>` before a text unless add_special_tokens is False, as Meta's own files do.
    Raises UserError when a token named here is not in the vocabulary.
    """
    content = vocabulary.read(tokenizer_model)
    for name in (BEGIN_OF_TEXT, eos_token, pad_token):
        if name not in content.special:
            hint = did_you_mean(name, content.special)
            raise UserError("the vocabulary has no such special token", file=content.source, found=name, hint=hint)
    named = {"bos_token": BEGIN_OF_TEXT, "eos_token": eos_token, "pad_token": pad_token}
    configuration: dict[str, Any] = {
        "added_tokens_decoder": {
            str(number): {key: value for key, value in _added(name, number).items() if key != "id"}
            for name, number in content.special.items()
        },
        **named,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": _MODEL_MAX_LENGTH,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    if chat_template is not None:
        configuration["chat_template"] = chat_template
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "tokenizer.json", tokenizer_json(content))
    write_json(folder / "tokenizer_config.json", configuration)
    write_json(folder / "special_tokens_map.json", named)
    if content.source.suffix != ".json":
        shutil.copyfile(content.source, folder / "tokenizer.model")
    elif sorted(content.ranks.values()) == list(range(len(content.ranks))):
        ordered = sorted(content.ranks.items(), key=lambda item: item[1])
        lines = (f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in ordered)
        write_text(folder / "tokenizer.model", "".join(lines))


def _added(name: str, number: int) -> dict[str, Any]:
    return {
        "id": number,
        "content": name,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }


def _byte_level(*, use_regex: bool, add_prefix_space: bool) -> dict[str, Any]:
    return {
        "type": "ByteLevel",
        "add_prefix_space": add_prefix_space,
        "trim_offsets": True,
        "use_regex": use_regex,
    }


def _begin_with(name: str, number: int) -> dict[str, Any]:
    token = {"SpecialToken": {"id": name, "type_id": 0}}
    first = {"Sequence": {"id": "A", "type_id": 0}}
    second = {"Sequence": {"id": "B", "type_id": 1}}
    return {
        "type": "TemplateProcessing",
        "single": [token, first],
        "pair": [token, first, {"SpecialToken": {"id": name, "type_id": 1}}, second],
        "special_tokens": {name: {"id": name, "ids": [number], "tokens": [name]}},
    }
