"""What a Llama 3 model is, whatever the format: sizes, rotary embedding, special ids, tensor shapes."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.weights import dtypes

ARCHITECTURE = "LlamaForCausalLM"
CONFIG_FILE = "config.json"
_PLAIN_ROPE = (None, "default")


@dataclass(frozen=True)
class LlamaConfig:
    """Sizes and constants of a Llama 3 model, by their Hugging Face names."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    head_dim: int
    max_position_embeddings: int = 8192
    rms_norm_eps: float = 1e-5
    rope_theta: float = 500000.0
    rope_scaling: dict[str, Any] | None = None  # Llama 3.1 to 3.3: {"rope_type": "llama3", "factor": 8.0, ...}
    tie_word_embeddings: bool = False
    bos_token_id: int = 128000
    eos_token_id: int | tuple[int, ...] = 128001
    pad_token_id: int | None = None
    dtype: str = "bf16"  # a name of common.weights.dtypes

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """Every id that ends a generation."""
        return (self.eos_token_id,) if isinstance(self.eos_token_id, int) else self.eos_token_id

    def with_dtype(self, dtype: str) -> LlamaConfig:
        """The same model stored in `dtype`."""
        return replace(self, dtype=dtype)


def tensor_shapes(config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor of the model, Hugging Face name → shape ([out, in] for matrices), in the model's order."""
    hidden, ffn = config.hidden_size, config.intermediate_size
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config.vocab_size, hidden)}
    for layer in range(config.num_hidden_layers):
        prefix = f"model.layers.{layer}."
        shapes[prefix + "self_attn.q_proj.weight"] = (queries, hidden)
        shapes[prefix + "self_attn.k_proj.weight"] = (keys, hidden)
        shapes[prefix + "self_attn.v_proj.weight"] = (keys, hidden)
        shapes[prefix + "self_attn.o_proj.weight"] = (hidden, queries)
        shapes[prefix + "mlp.gate_proj.weight"] = (ffn, hidden)
        shapes[prefix + "mlp.up_proj.weight"] = (ffn, hidden)
        shapes[prefix + "mlp.down_proj.weight"] = (hidden, ffn)
        shapes[prefix + "input_layernorm.weight"] = (hidden,)
        shapes[prefix + "post_attention_layernorm.weight"] = (hidden,)
    shapes["model.norm.weight"] = (hidden,)
    if not config.tie_word_embeddings:
        shapes["lm_head.weight"] = (config.vocab_size, hidden)
    return shapes


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from `file`. Raises UserError for a missing file, broken JSON or another value."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError("the file is missing", file=file) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        line = error.lineno if isinstance(error, json.JSONDecodeError) else None
        raise UserError("this is not JSON", file=file, line=line, found=str(error)) from None
    if not isinstance(value, dict):
        raise UserError("expected a JSON object", file=file, found=type(value).__name__)
    return value


def read_hugging_face(folder: Path) -> LlamaConfig:
    """The model described by `folder`/config.json, of any transformers version from 4.39 to 5.

    Raises UserError when the file is missing, is not a Llama's, or lacks a size.
    """
    file = folder / CONFIG_FILE
    if not file.is_file():
        raise UserError("the model folder has no config.json", file=folder, hint="copy it from the original model")
    return from_hugging_face(read_json(file), file)


def from_hugging_face(raw: dict[str, Any], file: Path) -> LlamaConfig:
    """The model described by the content `raw` of the config.json `file`."""
    if raw.get("model_type") != "llama":
        raise UserError("not a Llama model", file=file, found=raw.get("model_type"), expected="model_type llama")
    if raw.get("attention_bias") or raw.get("mlp_bias"):
        raise UserError("Llama 3 has no biases", file=file, found="attention_bias or mlp_bias true")
    hidden, heads = _size(raw, "hidden_size", file), _size(raw, "num_attention_heads", file)
    kv_heads = _size(raw, "num_key_value_heads", file, heads)
    if heads % kv_heads or (hidden % heads and "head_dim" not in raw):
        raise UserError(
            "the sizes contradict each other",
            file=file,
            found=f"hidden_size {hidden}, num_attention_heads {heads}, num_key_value_heads {kv_heads}",
            expected="hidden_size a multiple of num_attention_heads, itself a multiple of num_key_value_heads",
        )
    eos = raw.get("eos_token_id", 128001)
    rope = dict(raw.get("rope_parameters") or raw.get("rope_scaling") or {})
    theta = rope.pop("rope_theta", raw.get("rope_theta", 10000.0))
    rope["rope_type"] = rope.get("rope_type", rope.pop("type", None))
    named = str(raw.get("dtype") or raw.get("torch_dtype") or "float32")
    dtype = dtypes.by_hugging_face(named)
    if dtype is None:
        raise UserError("unknown dtype", file=file, found=named, expected="float32, bfloat16 or float16")
    return LlamaConfig(
        hidden_size=hidden,
        intermediate_size=_size(raw, "intermediate_size", file),
        num_hidden_layers=_size(raw, "num_hidden_layers", file),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=_size(raw, "vocab_size", file),
        head_dim=_size(raw, "head_dim", file, hidden // heads),
        max_position_embeddings=_size(raw, "max_position_embeddings", file, 8192),
        rms_norm_eps=float(raw.get("rms_norm_eps", 1e-6)),
        rope_theta=float(theta),
        rope_scaling=None if rope["rope_type"] in _PLAIN_ROPE else rope,
        tie_word_embeddings=bool(raw.get("tie_word_embeddings", False)),
        bos_token_id=int(raw.get("bos_token_id", 128000)),
        eos_token_id=tuple(eos) if isinstance(eos, list) else int(eos),
        pad_token_id=raw.get("pad_token_id"),
        dtype=dtype.name,
    )


def _size(raw: dict[str, Any], key: str, file: Path, default: int | None = None) -> int:
    value = raw.get(key)
    if value is None:
        value = default
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise UserError(f"{key} is missing or not a positive whole number", file=file, found=value)
    return value


def to_hugging_face(config: LlamaConfig) -> dict[str, Any]:
    """The content of a config.json that transformers 4.39 to 5 read alike.

    transformers 5 renamed torch_dtype to dtype and moved rope_theta into rope_parameters; the older
    keys stay beside them because the trainers pin older versions.
    """
    eos = config.eos_token_id
    dtype = dtypes.by_name(config.dtype).hugging_face
    scaling = config.rope_scaling or {"rope_type": "default"}
    return {
        "architectures": [ARCHITECTURE],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": config.bos_token_id,
        "dtype": dtype,
        "eos_token_id": eos if isinstance(eos, int) else list(eos),
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "hidden_size": config.hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": config.intermediate_size,
        "max_position_embeddings": config.max_position_embeddings,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": config.num_attention_heads,
        "num_hidden_layers": config.num_hidden_layers,
        "num_key_value_heads": config.num_key_value_heads,
        **({} if config.pad_token_id is None else {"pad_token_id": config.pad_token_id}),
        "pretraining_tp": 1,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_parameters": {**scaling, "rope_theta": config.rope_theta},
        "rope_scaling": config.rope_scaling,
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": config.tie_word_embeddings,
        "torch_dtype": dtype,
        "use_cache": True,
        "vocab_size": config.vocab_size,
    }


def generation_config(config: LlamaConfig) -> dict[str, Any]:
    """The content of a generation_config.json: greedy, ending at any of the model's eos ids."""
    eos = config.eos_token_id
    return {
        "_from_model_config": True,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": eos if isinstance(eos, int) else list(eos),
        **({} if config.pad_token_id is None else {"pad_token_id": config.pad_token_id}),
    }
