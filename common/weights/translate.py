"""The same model in the config files of MindFormers (model_config yaml) and of Meta (params.json)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common.errors import UserError
from common.weights import dtypes
from common.weights.config import LlamaConfig, read_json

PARAMS = "params.json"
_ROPE_KEYS = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
# Meta's code scales by these fixed values where params.json says use_scaled_rope (Llama 3.1); the
# models of 3.2 that share a table between embedding and output use factor 32.
_SCALED_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
_TIED_FACTOR = 32.0
_SCALED_POSITIONS, _PLAIN_POSITIONS = 131072, 8192
_FFN_MULTIPLIERS = (1.3, 1.2, 1.5, 1.0)  # of 8B and 70B, 405B, 1B, 3B


def to_mindformers(config: LlamaConfig, *, qkv_concat: bool = False) -> dict[str, Any]:
    """The `model:` section of a MindFormers yaml for this model.

    Raises UserError for a head_dim that MindFormers cannot express.
    """
    if config.head_dim * config.num_attention_heads != config.hidden_size:
        found = f"head_dim {config.head_dim}"
        expected = f"hidden_size / num_attention_heads, {config.hidden_size // config.num_attention_heads}"
        raise UserError("MindFormers cannot express this head size", found=found, expected=expected)
    model: dict[str, Any] = {
        "type": "LlamaConfig",
        "batch_size": 1,
        "seq_length": min(config.max_position_embeddings, _PLAIN_POSITIONS),
        "hidden_size": config.hidden_size,
        "num_layers": config.num_hidden_layers,
        "num_heads": config.num_attention_heads,
        "n_kv_heads": config.num_key_value_heads,
        "intermediate_size": config.intermediate_size,
        "vocab_size": config.vocab_size,
        "max_position_embedding": config.max_position_embeddings,
        "rms_norm_eps": config.rms_norm_eps,
        "theta": config.rope_theta,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": list(config.eos_token_ids) if len(config.eos_token_ids) > 1 else config.eos_token_ids[0],
        **({} if config.pad_token_id is None else {"pad_token_id": config.pad_token_id}),
        "ignore_token_id": -100,
        "tie_word_embeddings": config.tie_word_embeddings,
        "qkv_concat": qkv_concat,
        "param_init_type": dtypes.by_name(config.dtype).hugging_face,
        "compute_dtype": dtypes.by_name(config.dtype).hugging_face,
        "layernorm_compute_type": "float32",
        "softmax_compute_type": "float32",
        "rotary_dtype": "float32",
    }
    if config.rope_scaling is not None:
        model["extend_method"] = "LLAMA3"
        model["scaling_factor"] = {key: config.rope_scaling[key] for key in _ROPE_KEYS}
    return {"model": {"model_config": model, "arch": {"type": "LlamaForCausalLM"}}}


def from_mindformers(file: Path) -> LlamaConfig:
    """The model that a MindFormers yaml describes. Raises UserError when it is broken or lacks a size."""
    import yaml  # here, because frameworks' environments open models too and may lack it

    try:
        raw = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError("this is not YAML", file=file, found=str(error)) from None
    section = _model_section(raw)
    if section is None:
        raise UserError("the file has no model_config", file=file, expected="model: model_config: ...")
    method = str(section.get("extend_method", "None"))
    if method not in ("None", "LLAMA3"):
        raise UserError("unknown extend_method", file=file, found=method, expected="LLAMA3 or none")
    hidden, heads = _number(section, "hidden_size", file), _number(section, "num_heads", file)
    eos = section.get("eos_token_id", 128001)
    dtype = dtypes.by_hugging_face(str(section.get("param_init_type", "bfloat16")))
    multiplier = section.get("ffn_dim_multiplier")
    ffn = section.get("intermediate_size")
    multiple_of = int(section.get("multiple_of") or 256)
    return LlamaConfig(
        hidden_size=hidden,
        intermediate_size=int(ffn) if ffn else _ffn(hidden, float(multiplier or 1.0), multiple_of),
        num_hidden_layers=_number(section, "num_layers", file),
        num_attention_heads=heads,
        num_key_value_heads=int(section.get("n_kv_heads") or heads),
        vocab_size=_number(section, "vocab_size", file),
        head_dim=hidden // heads,
        max_position_embeddings=int(section.get("max_position_embedding") or section.get("seq_length") or 8192),
        rms_norm_eps=float(section.get("rms_norm_eps", 1e-5)),
        rope_theta=float(section.get("theta", 500000.0)),
        rope_scaling={"rope_type": "llama3", **section["scaling_factor"]} if method == "LLAMA3" else None,
        tie_word_embeddings=bool(section.get("tie_word_embeddings", False)),
        bos_token_id=int(section.get("bos_token_id", 128000)),
        eos_token_id=tuple(eos) if isinstance(eos, list) else int(eos),
        pad_token_id=section.get("pad_token_id"),
        dtype=dtype.name if dtype is not None else "bf16",
    )


def has_mindformers_config(file: Path) -> bool:
    """Whether the yaml `file` describes a model; one that cannot be read does not."""
    import yaml

    try:
        return _model_section(yaml.safe_load(file.read_text(encoding="utf-8"))) is not None
    except (yaml.YAMLError, UnicodeDecodeError, OSError):
        return False


def _model_section(raw: Any) -> dict[str, Any] | None:
    for key in ("model", "model_config"):
        if isinstance(raw, dict) and isinstance(raw.get(key), dict):
            raw = raw[key]
    return raw if isinstance(raw, dict) and "hidden_size" in raw and "num_layers" in raw else None


def to_params(config: LlamaConfig) -> dict[str, Any]:
    """The content of Meta's params.json for this model.

    Raises UserError when Meta's rule for the feed-forward size cannot give this model's.
    """
    multiplier, multiple_of = _ffn_rule(config)
    return {
        "dim": config.hidden_size,
        "n_layers": config.num_hidden_layers,
        "n_heads": config.num_attention_heads,
        "n_kv_heads": config.num_key_value_heads,
        "vocab_size": config.vocab_size,
        "ffn_dim_multiplier": multiplier,
        "multiple_of": multiple_of,
        "norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        **({"use_scaled_rope": True} if config.rope_scaling is not None else {}),
    }


def from_params(file: Path, *, ffn: int, vocabulary: int, tied: bool) -> LlamaConfig:
    """The model that Meta's params.json describes; `ffn`, `vocabulary` and `tied` come from its weights.

    The special ids are Llama 3's: the last 256 of the vocabulary. Raises UserError for a missing size.
    """
    raw = read_json(file)
    hidden, heads = _number(raw, "dim", file), _number(raw, "n_heads", file)
    scaled = bool(raw.get("use_scaled_rope", False))
    rope = {**_SCALED_ROPE, "factor": _TIED_FACTOR} if tied else dict(_SCALED_ROPE)
    bos = vocabulary - 256
    return LlamaConfig(
        hidden_size=hidden,
        intermediate_size=ffn,
        num_hidden_layers=_number(raw, "n_layers", file),
        num_attention_heads=heads,
        num_key_value_heads=int(raw.get("n_kv_heads") or heads),
        vocab_size=vocabulary,
        head_dim=hidden // heads,
        max_position_embeddings=_SCALED_POSITIONS if scaled else _PLAIN_POSITIONS,
        rms_norm_eps=float(raw.get("norm_eps", 1e-5)),
        rope_theta=float(raw.get("rope_theta", 500000.0)),
        rope_scaling=rope if scaled else None,
        tie_word_embeddings=tied,
        bos_token_id=bos,
        eos_token_id=bos + 1,
        pad_token_id=bos + 4,
    )


def _ffn(hidden: int, multiplier: float, multiple_of: int) -> int:
    """Meta's rule for the feed-forward size (model.py of meta-llama/llama3, FeedForward)."""
    size = int(multiplier * int(2 * 4 * hidden / 3))
    return multiple_of * -(-size // multiple_of)


def _ffn_rule(config: LlamaConfig) -> tuple[float, int]:
    """(ffn_dim_multiplier, multiple_of) that give the model's feed-forward size."""
    ffn, base = config.intermediate_size, int(2 * 4 * config.hidden_size / 3)
    multiples = [size for size in (1024, 4096, 256, 128, 64, 32, 16, 8, 1) if ffn % size == 0]
    for multiple in multiples:
        for multiplier in (*_FFN_MULTIPLIERS, round(ffn / base - 0.5 * multiple / base, 6)):
            if _ffn(config.hidden_size, multiplier, multiple) == ffn:
                return multiplier, multiple
    raise UserError("params.json cannot express this feed-forward size", found=ffn)


def _number(raw: dict[str, Any], key: str, file: Path) -> int:
    value = raw.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise UserError(f"{key} is missing or not a positive whole number", file=file, found=value)
    return value
