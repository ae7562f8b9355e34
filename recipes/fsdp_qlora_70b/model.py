"""Llama 3 with a frozen (4-bit) base and LoRA, loaded and sharded one decoder layer at a time.

No rank ever holds the whole model: a layer is read from safetensors, quantized on the device, given
its LoRA weights and sharded with FSDP2 before the next one is read. 70B in NF4 is about 36 GiB, more
than one 24 GB card, so loading whole and sharding afterwards would not fit.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig, GenerationConfig
from transformers.integrations import replace_with_bnb_linear

from common.errors import RunError


class Weights:
    """Tensors by name from a Hugging Face folder of safetensors files; one tensor is read at a time."""

    def __init__(self, folder: Path) -> None:
        index = folder / "model.safetensors.index.json"
        if index.exists():
            weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            self.files = {name: folder / file for name, file in weight_map.items()}
        else:
            only = folder / "model.safetensors"
            with safe_open(only, "pt") as file:
                self.files = dict.fromkeys(file.keys(), only)

    def shape(self, name: str) -> list[int]:
        with safe_open(self.files[name], "pt") as file:
            return file.get_slice(name).get_shape()

    def read(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        with safe_open(self.files[name], "pt") as file:
            return file.get_tensor(name).to(dtype)


def build(
    folder: Path, dtype: torch.dtype, quantization: BitsAndBytesConfig | None, lora: LoraConfig, attention: str
) -> PeftModel:
    """The model with its LoRA modules, every parameter on the meta device."""
    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)
    model.generation_config = GenerationConfig.from_pretrained(folder)
    if quantization is not None:
        model = replace_with_bnb_linear(model, modules_to_not_convert=["lm_head"], quantization_config=quantization)
        model.is_loaded_in_4bit = True  # PEFT chooses its 4-bit LoRA layer by this
    model.requires_grad_(False)
    peft_model = get_peft_model(model, lora, low_cpu_mem_usage=True, autocast_adapter_dtype=False)
    if lora.trainable_token_indices:
        model.lm_head.bias = None  # trl's loss reads it beside the weight; PEFT's wrapper passes on the weight alone
    # trl rounds the adapters of a model that says it is 4-bit to bf16. Ours stay fp32, as FSDP2 keeps
    # them: at a learning rate of 2e-4 most updates of a weight are below what bf16 resolves.
    model.is_loaded_in_4bit = False
    return peft_model


class LoraWeights:
    """LoRA tensors by name, fp32: from a saved adapter, or fresh.

    Fresh, B is zero and A is uniform in ±1/sqrt(in_features), the bound of nn.Linear's own init, drawn per
    tensor from the seed and its name: the same whatever the number of ranks and the order of loading.
    """

    def __init__(self, seed: int, adapter: Path | None) -> None:
        self.seed = seed
        self.saved = load_file(adapter / "adapter_model.safetensors") if adapter else None

    def get(self, name: str, shape: torch.Size) -> torch.Tensor:
        if self.saved is not None:
            return self._saved(name)
        if "lora_B" in name:
            return torch.zeros(shape)
        generator = torch.Generator().manual_seed(self.seed ^ zlib.crc32(name.encode()))
        bound = shape[1] ** -0.5
        return torch.empty(shape).uniform_(-bound, bound, generator=generator)

    def rows(self, name: str, original: torch.Tensor) -> torch.Tensor:
        """Trainable rows of the embeddings or the head: the saved ones, or those of the base."""
        return original.float() if self.saved is None else self._saved(name)

    def _saved(self, name: str) -> torch.Tensor:
        assert self.saved is not None
        return self.saved[f"base_model.model.{name}".removesuffix(".default").replace(".default.", ".")].float()


def load_sharded(
    model: PeftModel,
    folder: Path,
    lora: LoraWeights,
    *,
    mesh: DeviceMesh,
    device: torch.device,
    dtype: torch.dtype,
    reduce_dtype: torch.dtype,
    reshard_after_forward: bool,
    cpu_offload: bool,
) -> None:
    """Give the meta model of `build` its weights, layer by layer, each sharded before the next is read."""
    weights = Weights(folder)
    base = model.get_base_model()
    options: dict[str, Any] = {
        "mesh": mesh,
        # None keeps the loss in the dtype it was computed in: bf16 rounds it to steps of 0.06
        "mp_policy": MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=reduce_dtype, output_dtype=None),
        "offload_policy": CPUOffloadPolicy(pin_memory=device.type != "cpu") if cpu_offload else OffloadPolicy(),
    }
    # Buffers that are not saved cannot come from the files, so the module is built anew
    base.model.rotary_emb = type(base.model.rotary_emb)(base.config).to(device)
    for index, layer in enumerate(base.model.layers):
        materialize(layer, f"model.layers.{index}", weights, lora, device, dtype)
        fully_shard(layer, reshard_after_forward=reshard_after_forward, **options)
    for name in ("model.embed_tokens", "model.norm", "lm_head"):
        materialize(base.get_submodule(name), name, weights, lora, device, dtype)
    if base.config.tie_word_embeddings:
        base.lm_head.weight = base.model.embed_tokens.weight
    # The root group (embeddings, last norm, head) stays gathered from forward to backward: it is the
    # last to be used and the first to be needed again.
    fully_shard(model, reshard_after_forward=False, **options)


def materialize(
    module: nn.Module, prefix: str, weights: Weights, lora: LoraWeights, device: torch.device, dtype: torch.dtype
) -> None:
    """Replace the meta parameters of `module`, whose name in the files is `prefix`, by real ones."""
    for name, child in module.named_modules():
        for parameter_name, parameter in list(child.named_parameters(recurse=False)):
            full_name = ".".join(part for part in (prefix, name, parameter_name) if part)
            stored = full_name.replace(".base_layer", "").replace(".token_adapter", "")
            if "lora_" in full_name:
                value = lora.get(full_name, parameter.shape)
                setattr(child, parameter_name, nn.Parameter(value.to(device)))
            elif "trainable_tokens_delta" in full_name:
                rows = module.get_submodule("token_adapter").token_indices[parameter_name]
                value = lora.rows(full_name, weights.read(f"{prefix}.weight", dtype)[rows])
                setattr(child, parameter_name, nn.Parameter(value.to(device)))
            elif stored == "lm_head.weight" and stored not in weights.files:
                continue  # tied to the embeddings
            elif isinstance(child, bnb.nn.Linear4bit) and parameter_name == "weight":
                child.weight = bnb.nn.Params4bit(
                    weights.read(stored, dtype),
                    requires_grad=False,
                    compress_statistics=parameter.compress_statistics,
                    quant_type=parameter.quant_type,
                    quant_storage=parameter.quant_storage,
                    module=child,
                ).to(device)  # the move quantizes
            else:
                value = weights.read(stored, dtype).to(device)
                setattr(child, parameter_name, nn.Parameter(value, requires_grad=False))


def check_sharded(model: nn.Module, world_size: int) -> None:
    """Raise RunError unless every parameter of the decoder layers really is sharded over the ranks."""
    for name, parameter in model.named_parameters():
        if not isinstance(parameter, DTensor):
            raise RunError("a parameter is not sharded: FSDP is not in effect", found=name)
        share = -(-parameter.shape[0] // world_size) * (parameter.numel() // parameter.shape[0])
        if parameter.to_local().numel() > share:
            raise RunError(
                "a rank holds more than its share", found=f"{name}: {parameter.to_local().numel()}", expected=share
            )
