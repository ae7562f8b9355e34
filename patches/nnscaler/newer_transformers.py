"""transformers' Llama, from 4.57 to 5, as something that nnScaler's tracer can follow."""

from __future__ import annotations

import inspect
from typing import Any

VERSIONS = "==0.8"
REASON = (
    "The tracer reads the bytecode of each forward: the decorators that transformers puts around them (kernels from "
    "the hub, recording of outputs, dynamic rotary embeddings) hide it, and tracing ends."
)
UPSTREAM = "nnscaler/graph/tracer; transformers/models/llama/modeling_llama.py"


def apply() -> None:
    """Take the decorators off the forwards of Llama's layers. The computation stays the same for default RoPE."""
    from transformers.models.llama import modeling_llama as llama

    for layer in (llama.LlamaRotaryEmbedding, llama.LlamaAttention, llama.LlamaDecoderLayer, llama.LlamaRMSNorm):
        layer.forward = inspect.unwrap(layer.forward)
    llama.apply_rotary_pos_emb = inspect.unwrap(llama.apply_rotary_pos_emb)
    llama.ALL_ATTENTION_FUNCTIONS = Attentions()


class Attentions:
    """Attention by its registered name, found without a class whose source the tracer cannot read."""

    def get_interface(self, name: str, default: Any) -> Any:
        from transformers import AttentionInterface

        return AttentionInterface._global_mapping[name]
