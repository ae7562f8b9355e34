"""Llama 3 as nnScaler traces it: one batch in, the summed loss of its trained tokens out.

Labels in the prepared data are not shifted; `batch` in data.py shifts them, once, and nothing here does.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as functional
from losses import chunked_losses
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.models.llama.modeling_llama import repeat_kv

from common.errors import UserError

IGNORE = -100


def within_documents(
    module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, **_: object
) -> tuple[torch.Tensor, None]:
    """Grouped-query attention, where `mask` (bool; True: seen) says so.

    query: (rows, heads, tokens, width); key, value: with fewer heads; mask: (rows, 1, tokens, tokens).
    """
    key, value = repeat_kv(key, module.num_key_value_groups), repeat_kv(value, module.num_key_value_groups)
    return scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2).contiguous(), None


def causal(
    module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: None, **_: object
) -> tuple[torch.Tensor, None]:
    """The same, where every token sees all before it in its row."""
    key, value = repeat_kv(key, module.num_key_value_groups), repeat_kv(value, module.num_key_value_groups)
    return scaled_dot_product_attention(query, key, value, is_causal=True).transpose(1, 2).contiguous(), None


# Two functions, because the tracer cannot follow a question that is asked of a tensor, such as `mask is None`
ATTENTION = {"isolated": within_documents, "joined": causal}


def build(folder: Path, from_scratch: bool, layers: int | None, documents: str) -> PreTrainedModel:
    """The fp32 model of a Hugging Face folder: its weights, or its shape with `layers` layers and new weights."""
    if documents not in ATTENTION:
        raise UserError("config.model.documents has no such choice", found=documents, expected=", ".join(ATTENTION))
    name = f"llama3_{documents}"
    AttentionInterface.register(name, ATTENTION[documents])
    if not from_scratch:
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation=name)
    config = AutoConfig.from_pretrained(folder)
    config.num_hidden_layers = layers or config.num_hidden_layers
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation=name)


class SummedLoss(nn.Module):
    """Negative log-likelihood in nats, summed over the trained tokens of a batch.

    Keys of a batch, all int64 (rows, tokens): input_ids; labels, of the next token; position_ids, from 0 in each
    document; and, where documents are isolated, first, the place in the row where each token's document begins.
    """

    folder: ClassVar[Path]
    """Of weights, or of the shape. No argument: generated code is bound to these, and a run directory may be moved."""

    def __init__(self, from_scratch: bool, layers: int | None, loss_chunk: int | None, documents: str) -> None:
        super().__init__()
        self.model = build(self.folder, from_scratch, layers, documents)
        self.isolated = documents == "isolated"
        self.loss_chunk = loss_chunk

    def forward(self, data: dict[str, torch.Tensor]) -> torch.Tensor:
        positions = data["position_ids"]
        mask = None
        if self.isolated:
            first = data["first"]
            same = first.unsqueeze(-1) == first.unsqueeze(-2)
            mask = torch.logical_and(same, positions.unsqueeze(-1) >= positions.unsqueeze(-2)).unsqueeze(1)
        hidden = self.model.model.embed_tokens(data["input_ids"])
        rotary = self.model.model.rotary_emb(hidden, positions)
        for layer in self.model.model.layers:
            hidden = layer(hidden, attention_mask=mask, position_embeddings=rotary)
        hidden = self.model.model.norm(hidden)
        if self.loss_chunk is not None:
            return torch.sum(chunked_losses(hidden, self.model.lm_head.weight, data["labels"], self.loss_chunk))
        logits = self.model.lm_head(hidden).float()
        return functional.cross_entropy(
            logits.view(-1, logits.size(-1)), data["labels"].view(-1), ignore_index=IGNORE, reduction="sum"
        )
