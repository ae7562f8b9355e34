"""A tiny Llama 3 with grouped-query attention, made from a seed with numpy alone.

The same seed gives the same fp32 values on every machine and numpy; another dtype rounds them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from common import tokenizer as tokenizers
from common.errors import UserError, did_you_mean
from common.files import whole_directory, write_json
from common.tokenizer.vocabulary import BEGIN_OF_TEXT, END_OF_TEXT
from common.weights import dtypes, hugging_face, tokenizer_files
from common.weights.config import CONFIG_FILE, LlamaConfig, generation_config, tensor_shapes, to_hugging_face
from common.weights.dtypes import Array
from common.weights.tensors import Held, Tensor
from common.weights.writing import write_file

SHARDS = 3


def make(
    folder: Path,
    *,
    seed: int = 0,
    kind: str = tokenizer_files.BASE,
    dtype: str = "bf16",
    vocabulary: Path | None = None,
    hidden: int = 128,
    layers: int = 4,
    heads: int = 4,
    kv_heads: int = 2,
    ffn: int = 384,
) -> LlamaConfig:
    """Write the model to `folder` in Hugging Face layout, whole or not at all, and return its config.

    `kind` is base or instruct. In a base model the rows of the special tokens that Meta's base
    weights never trained (all but begin and end of text) are zero, in the embedding and in lm_head.
    `vocabulary` is a tokenizer file or folder, the project's tiny one unless given. Raises UserError
    when `folder` exists and is not empty, or the tokenizer cannot be read.
    """
    if kind not in tokenizer_files.KINDS:
        expected = ", ".join(tokenizer_files.KINDS)
        raise UserError(
            "unknown kind of model", found=kind, expected=expected, hint=did_you_mean(kind, tokenizer_files.KINDS)
        )
    vocabulary = vocabulary or tokenizers.TINY
    size, bos, eos, pad = tokenizer_files.special_ids(vocabulary, kind)
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=ffn,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=size,
        head_dim=hidden // heads,
        bos_token_id=bos,
        eos_token_id=eos,
        pad_token_id=pad,
        dtype=dtypes.by_name(dtype).name,
    )
    loaded = tokenizers.load(vocabulary)
    trained = (BEGIN_OF_TEXT, END_OF_TEXT) if kind == tokenizer_files.BASE else tuple(loaded.special)
    untrained = sorted(number for name, number in loaded.special.items() if name not in trained)
    with whole_directory(folder) as partial:
        tensors = _tensors(config, seed, untrained)
        total = sum(tensor.nbytes for tensor in tensors.values())
        # Several shards, so that nothing that reads the tiny model gets away with reading one file.
        files, index = hugging_face.plan(tensors, shard_size=total // SHARDS + 1)
        for file in files:
            write_file(partial, file, report=lambda _: None)
        if index is not None:
            write_json(partial / hugging_face.INDEX, index)
        write_json(partial / CONFIG_FILE, to_hugging_face(config))
        write_json(partial / "generation_config.json", generation_config(config))
        tokenizer_files.write(vocabulary, partial, kind)
    return config


def _tensors(config: LlamaConfig, seed: int, untrained: list[int]) -> dict[str, Tensor]:
    # RandomState is frozen for good (NEP 19); the streams of numpy's newer generators may change.
    random = np.random.RandomState(seed)
    dtype = dtypes.by_name(config.dtype)
    tensors: dict[str, Tensor] = {}
    for name, shape in tensor_shapes(config).items():
        values: Array
        if len(shape) == 1:
            values = np.ones(shape, np.float32)
        else:
            # Llama's own scale of 0.02 is for widths of thousands: at 128 no logit could leave the uniform
            # distribution by much, however well LoRA trained
            values = (random.standard_normal(shape) * config.hidden_size**-0.5).astype(np.float32)
        if name in ("model.embed_tokens.weight", "lm_head.weight"):
            values[untrained] = 0.0
        tensors[name] = Held(dtype, dtypes.cast(values, dtypes.FP32, dtype))
    return tensors
