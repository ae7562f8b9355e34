"""What travels along with weights: config, generation config and tokenizer, in the target's terms."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from common import tokenizer as tokenizers
from common.errors import UserError
from common.files import write_json, write_text
from common.tokenizer.vocabulary import END_OF_TURN
from common.weights import config as configs
from common.weights import dtypes, layouts, tokenizer_files, translate
from common.weights.config import CONFIG_FILE, LlamaConfig
from common.weights.source import Source
from common.weights.untrained import rows_untrained

GENERATION_FILE = "generation_config.json"
MINDFORMERS_FILE = "model_config.yaml"


def write(
    source: Source,
    folder: Path,
    config: LlamaConfig,
    layout: str,
    *,
    tokenizer: Path | None,
    kind: str | None,
    qkv_concat: bool,
) -> None:
    """Write config.json, generation_config.json and the tokenizer, and `layout`'s own config, into `folder`.

    config.json goes into every format: no other file says all that it says, and what is converted
    there can be converted back. `tokenizer` and `kind` as in `common.weights.convert`.
    """
    original = source.folder / CONFIG_FILE
    raw: dict[str, Any] = configs.read_json(original) if original.is_file() else configs.to_hugging_face(config)
    named = dtypes.by_name(config.dtype).hugging_face
    raw |= {key: named for key in ("dtype", "torch_dtype") if key in raw} or {"torch_dtype": named}
    write_json(folder / CONFIG_FILE, raw)
    generation = source.folder / GENERATION_FILE
    if generation.is_file():
        shutil.copyfile(generation, folder / GENERATION_FILE)
    else:
        write_json(folder / GENERATION_FILE, configs.generation_config(config))
    if layout == layouts.MINDSPORE:
        import yaml

        content = translate.to_mindformers(config, qkv_concat=qkv_concat)
        write_text(folder / MINDFORMERS_FILE, yaml.safe_dump(content, sort_keys=False))
    if layout == layouts.META:
        write_json(folder / translate.PARAMS, translate.to_params(config))
    if tokenizer is not None:
        tokenizer_files.write(tokenizer, folder, kind or tokenizer_files.kind_of(config, tokenizer))
    else:
        for name in tokenizer_files.NAMES:
            if (source.folder / name).is_file():
                shutil.copyfile(source.folder / name, folder / name)
    tokenizer_files.check(folder, config)


def resolve(source: Source, tokenizer: Path | None, kind: str | None) -> LlamaConfig:
    """The config of `source` with the special ids that only its tokenizer and weights can tell.

    Meta's params.json and bare checkpoints do not say whether a model is base or instruct: the
    embedding row of <|eot_id|> does, unless `kind` is given. A model with a config.json is left as it is.
    """
    place = tokenizer or source.folder
    settled = (source.folder / CONFIG_FILE).is_file() and kind is None
    if tokenizer is None and (settled or not any((source.folder / name).is_file() for name in tokenizer_files.NAMES)):
        return source.config
    vocabulary = tokenizers.load(place)
    if vocabulary.vocabulary_size > source.config.vocab_size:
        expected = f"at most vocab_size, {source.config.vocab_size}"
        found = vocabulary.vocabulary_size
        raise UserError("the tokenizer has more ids than the model", file=place, found=found, expected=expected)
    if settled:
        return source.config
    if kind is None:
        end = vocabulary.special_id(END_OF_TURN)
        kind = tokenizer_files.BASE if rows_untrained(source, [end]) else tokenizer_files.INSTRUCT
    return tokenizer_files.with_special_ids(source.config, place, kind)
