"""Sizes of the published Llama 3 models, known without their weights, and of a model on this machine."""

from __future__ import annotations

import re
from pathlib import Path

from common.errors import UserError
from common.weights import config as weights_config
from common.weights.config import LlamaConfig
from common.weights.get import TINY

VOCABULARY = 128256


def _published(
    layers: int, hidden: int, ffn: int, heads: int, *, context: int = 131072, tied: bool = False
) -> LlamaConfig:
    return LlamaConfig(
        hidden_size=hidden,
        intermediate_size=ffn,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=8,
        vocab_size=VOCABULARY,
        head_dim=hidden // heads,
        max_position_embeddings=context,
        tie_word_embeddings=tied,
    )


# From the config.json that Meta publishes with each model; Llama 3 8B and 70B, 3.1 to 3.3 share their sizes
PUBLISHED = {
    "1B": _published(16, 2048, 8192, 32, tied=True),
    "3B": _published(28, 3072, 8192, 24, tied=True),
    "8B": _published(32, 4096, 14336, 32),
    "70B": _published(80, 8192, 28672, 64),
    "405B": _published(126, 16384, 53248, 128),
}

# common.weights.tiny's own, with the vocabulary of the tokenizer in common/tokenizer
TINY_MODEL = LlamaConfig(
    hidden_size=128,
    intermediate_size=384,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=1280,
    head_dim=32,
)


def find(model: str) -> LlamaConfig:
    """The sizes of `model`: tiny, a folder with config.json, or a name that says them (meta-llama/Meta-Llama-3-8B).

    Raises UserError for a folder without a config.json and for a name that says no known size.
    """
    folder = Path(model)
    if folder.is_dir() and (folder / weights_config.CONFIG_FILE).is_file():
        return weights_config.read_hugging_face(folder)
    if model == TINY:
        return TINY_MODEL
    said = re.search(r"(?<![\d.])(1|3|8|70|405)b(?![a-z])", folder.name, re.IGNORECASE)
    if said is None:
        raise UserError(
            "the sizes of this model are not known",
            found=model,
            expected=f"a folder with config.json, or a name with one of {', '.join(PUBLISHED)}",
            hint="--model meta-llama/Meta-Llama-3-8B; the weights need not be here",
        )
    return PUBLISHED[f"{said[1]}B"]
