"""Where each format keeps each weight: Hugging Face's names and rows, MindSpore's, and Meta's.

The middle is always Hugging Face's layout. MindSpore (MindFormers) has other names and, with
qkv_concat, joined matrices. Meta has other names and permuted query and key rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from common.errors import UserError
from common.weights.config import LlamaConfig, tensor_shapes
from common.weights.tensors import Tensor
from common.weights.views import Alternating, EveryNth, HeadsPermuted, Rows, Stacked

HF, MINDSPORE, META = "hf", "mindspore", "meta"
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"

_OUTER = {
    EMBEDDING: ("model.tok_embeddings.embedding_weight", "tok_embeddings.weight"),
    "model.norm.weight": ("model.norm_out.weight", "norm.weight"),
    HEAD: ("lm_head.weight", "output.weight"),
}
INNER = {
    "self_attn.q_proj": "attention.wq",
    "self_attn.k_proj": "attention.wk",
    "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.down_proj": "feed_forward.w2",
    "mlp.up_proj": "feed_forward.w3",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
}
QUERY_OR_KEY = re.compile(r"self_attn\.[qk]_proj\.weight$")
NNSCALER_HINT = "merge the parts of all ranks first: Trainer.merge_checkpoint, as recipes/nnscaler_8b/merge.py does"
_NNSCALER_PART = re.compile(r"_embed_tokens_weight_\d+$")
_LAYER = re.compile(r"^model\.(layers\.\d+\.)(.+)\.weight$")
_WQKV = re.compile(r"^(model\.layers\.\d+\.attention\.)w_qkv\.weight$")
_GATE_HIDDEN = re.compile(r"^(model\.layers\.\d+\.feed_forward\.)w_gate_hidden\.weight$")

# What trainers store beside the weights, by the name's beginning: optimizer state, counters, rotary tables.
_TRAINING_STATE = re.compile(
    r"^(adam_[mv]|exp_avg(_sq)?|moments?|moment[12]|accu_grads|param_fp32)\."
    r"|^(epoch_num|step_num|cur_epoch_num|cur_step_num|global_step|learning_rate|loss_scale|scale_sense|scale|good_step"
    r"|current_iterator_step|last_overflow_iterator_step|overflow_iterator_step|beta[12]_power|network_name"
    r"|global_batch_size|data_parallel|random_op|is_arf|current_default_lr|current_grouped_lr)$"
    r"|(^|\.)rotary_emb\.(inv_freq|original_inv_freq|_?(cos|sin)_cached)$|^rope\.freqs$|(freqs_mgr|freqs_cis)\b"
)


def name_in(layout: str, name: str) -> str:
    """The name that `layout` has for the weight that Hugging Face calls `name`."""
    if layout == HF:
        return name
    if name in _OUTER:
        return _OUTER[name][layout == META]
    match = _LAYER.match(name)
    if match is None or match[2] not in INNER:
        raise ValueError(f"no weight of a Llama 3 model: {name}")
    inner = f"{match[1]}{INNER[match[2]]}.weight"
    return inner if layout == META else "model." + inner


def recognise(names: Mapping[str, object], file: Path) -> tuple[str, str]:
    """(layout, prefix) of a weights file's `names`; trainers put a prefix such as "model." before each.

    Raises UserError when they are no Llama's.
    """
    for layout in (MINDSPORE, HF, META):  # in this order: Meta's name is the end of no other
        known = name_in(layout, EMBEDDING)
        for name in names:
            if (name == known or name.endswith("." + known)) and not _TRAINING_STATE.search(name):
                return layout, name.removesuffix(known)
    found = ", ".join(list(names)[:3]) or "no tensors"
    if any(_NNSCALER_PART.search(name) for name in names):
        raise UserError("this is one rank's part of an nnScaler checkpoint", file=file, found=found, hint=NNSCALER_HINT)
    raise UserError("these are not a Llama's weights", file=file, found=found, expected=f"a tensor {EMBEDDING}")


def is_training_state(name: str) -> bool:
    """Whether `name` is an optimizer's, a counter or a rotary table: no part of the model."""
    return _TRAINING_STATE.search(name) is not None


def to_hugging_face(tensors: Mapping[str, Tensor], layout: str, config: LlamaConfig) -> dict[str, Tensor]:
    """The same weights under Hugging Face's names and with its rows, in the order given. Nothing is read."""
    if layout == MINDSPORE:
        tensors = _separated(tensors, config)
    # With lm_head even where the tables are tied: Meta's files hold it all the same.
    back = {name_in(layout, name): name for name in (*tensor_shapes(config), HEAD)}
    result: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        known = back.get(name, name)
        if layout == META and QUERY_OR_KEY.search(known) and _whole_heads(tensor, config):
            tensor = HeadsPermuted(tensor, config.head_dim, to_meta=False)
        result[known] = tensor
    return result


def from_hugging_face(
    tensors: Mapping[str, Tensor], layout: str, config: LlamaConfig, *, qkv_concat: bool = False
) -> dict[str, Tensor]:
    """The same weights under the names and with the rows of `layout`. Nothing is read.

    `qkv_concat` (MindSpore) joins query, key and value, and gate and up, as MindFormers from 1.5 does.
    """
    result: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if layout == META and QUERY_OR_KEY.search(name):
            tensor = HeadsPermuted(tensor, config.head_dim, to_meta=True)
        result[name_in(layout, name)] = tensor
    if layout == META and config.tie_word_embeddings:
        result[name_in(META, HEAD)] = result[name_in(META, EMBEDDING)]  # Meta stores a tied table twice
    return _joined(result, config) if layout == MINDSPORE and qkv_concat else result


def shapes_in(layout: str, config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor that a file in `layout` may hold, joined ones included."""
    shapes = {name_in(layout, name): shape for name, shape in tensor_shapes(config).items()}
    shapes.setdefault(name_in(layout, HEAD), (config.vocab_size, config.hidden_size))
    if layout == MINDSPORE:
        rows = (config.num_attention_heads + 2 * config.num_key_value_heads) * config.head_dim
        for layer in range(config.num_hidden_layers):
            prefix = f"model.layers.{layer}."
            shapes[prefix + "attention.w_qkv.weight"] = (rows, config.hidden_size)
            shapes[prefix + "feed_forward.w_gate_hidden.weight"] = (2 * config.intermediate_size, config.hidden_size)
    return shapes


def _whole_heads(tensor: Tensor, config: LlamaConfig) -> bool:
    # A misshapen tensor is left as it is: the check of shapes that follows names it.
    return len(tensor.shape) == 2 and tensor.shape[0] % config.head_dim == 0


def _joined(tensors: Mapping[str, Tensor], config: LlamaConfig) -> dict[str, Tensor]:
    """Query, key and value rows grouped by key head, gate and up rows in turn (MindFormers' qkv_concat)."""
    group = config.num_attention_heads // config.num_key_value_heads * config.head_dim
    result: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith(".wq.weight"):
            key, value = (tensors[name.replace(".wq.", part)] for part in (".wk.", ".wv."))
            parts: list[Tensor] = []
            for head in range(config.num_key_value_heads):
                parts.append(Rows(tensor, head * group, (head + 1) * group))
                start, stop = head * config.head_dim, (head + 1) * config.head_dim
                parts += [Rows(key, start, stop), Rows(value, start, stop)]
            result[name.replace(".wq.", ".w_qkv.")] = Stacked(parts)
        elif name.endswith(".w1.weight"):
            up = tensors[name.replace(".w1.", ".w3.")]
            result[name.replace(".w1.", ".w_gate_hidden.")] = Alternating((tensor, up))
        elif not name.endswith((".wk.weight", ".wv.weight", ".w3.weight")):
            result[name] = tensor
    return result


def _separated(tensors: Mapping[str, Tensor], config: LlamaConfig) -> dict[str, Tensor]:
    """The inverse of `_joined`."""
    group = config.num_attention_heads // config.num_key_value_heads * config.head_dim
    width = group + 2 * config.head_dim  # rows of one key head's queries, keys and values

    def pick(source: Tensor, offset: int, count: int) -> Tensor:
        starts = range(offset, config.num_key_value_heads * width, width)
        return Stacked([Rows(source, start, start + count) for start in starts])

    separate: dict[str, Callable[[Tensor], Tensor]] = {
        "wq": lambda source: pick(source, 0, group),
        "wk": lambda source: pick(source, group, config.head_dim),
        "wv": lambda source: pick(source, group + config.head_dim, config.head_dim),
    }
    result: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if match := _WQKV.match(name):
            if tensor.shape[0] != config.num_key_value_heads * width:
                result[name] = tensor  # reported as a tensor that does not belong
                continue
            for part, take in separate.items():
                result[f"{match[1]}{part}.weight"] = take(tensor)
        elif match := _GATE_HIDDEN.match(name):
            result[match[1] + "w1.weight"] = EveryNth(tensor, 0, 2)
            result[match[1] + "w3.weight"] = EveryNth(tensor, 1, 2)
        else:
            result[name] = tensor
    return result
