"""Peak memory of one rank under PyTorch FSDP2, by torch's own tracker: no weights, no GPU, nothing computed.

    python -m tools.planning.fsdp_tracker < SPEC.json

runs in a recipe's environment (torch and transformers), on fake tensors and a fake process group, and
prints {"bytes": {part: bytes}, "total": bytes, "seconds": seconds}. SPEC.json is tools.planning.verify's.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn import functional
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils.checkpoint import checkpoint
from transformers import LlamaConfig, LlamaForCausalLM

NF4_BLOCK = 64  # weights of one absmax; 256 of these have one fp32 scale (double quantization)
NF4_NESTED = 256


class Multiply4Bit(torch.autograd.Function):
    """What bitsandbytes' 4-bit product keeps and takes: the packed weight, and the dequantized one for a moment."""

    @staticmethod
    def forward(context: Any, x: torch.Tensor, packed: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        context.save_for_backward(packed)
        context.shape = shape
        return functional.linear(x, x.new_empty(shape))

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return torch.matmul(gradient, gradient.new_empty(context.shape)), None, None


class Linear4Bit(nn.Module):
    """A frozen NF4 layer: two weights a byte, stored as `dtype`, which FSDP shards; its scales on every rank."""

    def __init__(self, linear: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__()
        count = linear.weight.numel()
        self.shape = tuple(linear.weight.shape)
        self.weight = nn.Parameter(torch.empty(count // (2 * dtype.itemsize), 1, dtype=dtype), requires_grad=False)
        self.absmax = torch.empty(count // NF4_BLOCK, dtype=torch.uint8)
        self.nested = torch.empty(count // NF4_BLOCK // NF4_NESTED, dtype=torch.float32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return Multiply4Bit.apply(x, self.weight, self.shape)


class Lora(nn.Module):
    """A frozen layer and its LoRA pair, as peft computes them."""

    def __init__(self, linear: nn.Linear, base: nn.Module, spec: dict[str, Any]) -> None:
        super().__init__()
        outputs, inputs = linear.weight.shape
        dtype = getattr(torch, spec["trained_dtype"])
        self.base = base
        self.dropout = nn.Dropout(spec["lora_dropout"]) if spec["lora_dropout"] else nn.Identity()
        self.a = nn.Linear(inputs, spec["lora_rank"], bias=False, dtype=dtype)
        self.b = nn.Linear(spec["lora_rank"], outputs, bias=False, dtype=dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + self.b(self.a(self.dropout(x.to(self.a.weight.dtype)))).to(x.dtype)


def build(spec: dict[str, Any]) -> LlamaForCausalLM:
    config = LlamaConfig(**spec["model"], use_cache=False)
    config._attn_implementation = "sdpa"
    dtype = getattr(torch, spec["weights_dtype"])
    torch.set_default_dtype(dtype if spec["lora_rank"] else getattr(torch, spec["trained_dtype"]))
    model = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    if spec["lora_rank"]:
        model.requires_grad_(False)
        for layer in model.model.layers:
            for block in (layer.self_attn, layer.mlp):
                for name, linear in list(block.named_children()):
                    if isinstance(linear, nn.Linear):
                        base = Linear4Bit(linear, dtype) if spec["quantized"] else linear
                        adapted = name in spec["lora_targets"]
                        setattr(block, name, Lora(linear, base, spec) if adapted else base)
    if spec["checkpointing"]:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        if spec["lora_rank"]:
            model.enable_input_require_grads()
    return model


def shard(model: LlamaForCausalLM, spec: dict[str, Any], mesh: Any) -> None:
    """As the recipes do: each layer by itself; embeddings, last norm and head stay gathered."""
    policy = MixedPrecisionPolicy(param_dtype=getattr(torch, spec["weights_dtype"]), reduce_dtype=torch.float32)
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy, reshard_after_forward=spec["reshard_after_forward"])
    fully_shard(model, mesh=mesh, mp_policy=policy, reshard_after_forward=False)


def in_chunks(model: LlamaForCausalLM, ids: torch.Tensor, size: int) -> torch.Tensor:
    """The loss of `size` tokens at a time: only their logits exist."""
    hidden = model.model(input_ids=ids).last_hidden_state.flatten(0, 1)
    labels = ids.flatten()
    losses = [
        checkpoint(
            chunk_loss, hidden[at : at + size], model.lm_head.weight, labels[at : at + size], use_reentrant=False
        )
        for at in range(0, len(labels), size)
    ]
    return torch.stack(losses).sum() / len(labels)


def chunk_loss(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(functional.linear(hidden, weight).float(), labels, reduction="sum")


def optimizer_with_state(trained: list[nn.Parameter]) -> torch.optim.Optimizer:
    """AdamW after a step, which is not tracked: of its operations on shards the tracker sees whole tensors."""
    optimizer = torch.optim.AdamW(trained, foreach=False)
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    return optimizer


def track(spec: dict[str, Any]) -> dict[str, Any]:
    started = time.perf_counter()
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=spec["world_size"])
    mesh = init_device_mesh("cpu", (spec["world_size"],))
    with FakeTensorMode():
        model = build(spec)
        shard(model, spec, mesh)
        model.train()
        if spec["loss_chunk"]:
            model.forward = lambda ids: in_chunks(model, ids, spec["loss_chunk"])
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = optimizer_with_state(trained)
        ids = torch.zeros((spec["micro_batch_size"], spec["length"]), dtype=torch.long)
        tracker = FSDPMemTracker(model, optimizer)
        tracker.track_inputs((ids,))
        with tracker:
            loss = model(ids) if spec["loss_chunk"] else model(input_ids=ids, labels=ids).loss
            loss.backward()
        peak = next(iter(tracker.get_tracker_snapshot("peak").values()))
    dist.destroy_process_group()
    parts = {str(getattr(part, "value", part)): int(size) for part, size in peak.items()}
    total = parts.pop("Total")
    return {"bytes": parts, "total": total, "seconds": round(time.perf_counter() - started, 1)}


if __name__ == "__main__":
    print(json.dumps(track(json.load(sys.stdin))))
