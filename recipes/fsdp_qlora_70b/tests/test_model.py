"""The model that is loaded layer by layer is the model, sharded, and documents in a row do not meet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import yaml
from data import Collator
from export import Merger
from model import LoraWeights, Weights, build, check_sharded, load_sharded
from setup import lora_config, quantization
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from transformers import AutoModelForCausalLM

import patches
from common.errors import RunError, UserError


@pytest.fixture(scope="module")
def mesh() -> Iterator[DeviceMesh]:
    patches.apply("bitsandbytes.keep_4bit_layout")
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def config(run: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((run / "train" / "config.yaml").read_text())
    loaded["model"]["path"] = str(run / "weights")
    return loaded


def loaded(config: dict[str, Any], mesh: DeviceMesh, adapter: Path | None = None, dtype: str | None = None) -> Any:
    """The model as train.py loads it, on one rank."""
    name = dtype or config["model"]["dtype"]
    folder = Path(config["model"]["path"])
    quantized = quantization(config) if dtype is None else None
    model = build(folder, getattr(torch, name), quantized, lora_config(config), "sdpa")
    load_sharded(
        model,
        folder,
        LoraWeights(config["sft"]["seed"], adapter),
        mesh=mesh,
        device=torch.device("cpu"),
        dtype=getattr(torch, name),
        reduce_dtype=torch.float32,
        reshard_after_forward=True,
        cpu_offload=False,
    )
    return model.eval()


IDS = torch.arange(2, 66).reshape(1, 64)


def test_layer_by_layer_equals_from_pretrained(config: dict[str, Any], mesh: DeviceMesh) -> None:
    stock = AutoModelForCausalLM.from_pretrained(
        config["model"]["path"], quantization_config=quantization(config), dtype=torch.bfloat16
    )
    with torch.no_grad():
        assert torch.equal(loaded(config, mesh)(IDS).logits, stock(IDS).logits)


def test_unsharded_or_replicated_parameters_are_found(config: dict[str, Any], mesh: DeviceMesh) -> None:
    model = loaded(config, mesh)
    check_sharded(model, 1)
    with pytest.raises(RunError, match="more than its share"):
        check_sharded(model, 2)
    with pytest.raises(RunError, match="FSDP is not in effect"):
        check_sharded(torch.nn.Linear(4, 4), 2)


def test_fresh_lora_changes_nothing_and_depends_on_the_seed_alone(config: dict[str, Any], mesh: DeviceMesh) -> None:
    first, second, other = LoraWeights(1, None), LoraWeights(1, None), LoraWeights(2, None)
    shape = torch.Size((16, 128))
    name = "model.layers.0.self_attn.q_proj.lora_A.default.weight"
    assert torch.equal(first.get(name, shape), second.get(name, shape))
    assert not torch.equal(first.get(name, shape), other.get(name, shape))
    assert first.get(name, shape).abs().max() <= 128**-0.5
    assert not first.get(name.replace("lora_A", "lora_B"), torch.Size((128, 16))).any()


def test_documents_in_a_row_do_not_attend_to_each_other(config: dict[str, Any], mesh: DeviceMesh) -> None:
    model = loaded(config, mesh, dtype="float32")
    first, second = list(range(10, 40)), list(range(100, 150))
    packed = {
        "input_ids": first + second,
        "labels": first + second,
        "position_ids": [*range(len(first)), *range(len(second))],
    }
    alone = {"input_ids": second, "labels": second, "position_ids": list(range(len(second)))}
    leaking = {**packed, "position_ids": list(range(len(first) + len(second)))}

    def logits(row: dict[str, list[int]], beside: dict[str, list[int]]) -> torch.Tensor:
        # Two rows of different lengths, so that padding is there as in training
        batch = Collator(pad_id=0)([row, beside])
        with torch.no_grad():
            return model(**{k: v for k, v in batch.items() if k != "labels"}, use_cache=False).logits[0]

    expected = logits(alone, packed)[: len(second)]
    torch.testing.assert_close(
        logits(packed, alone)[len(first) : len(first) + len(second)], expected, atol=1e-5, rtol=0
    )
    assert (logits(leaking, alone)[len(first) : len(first) + len(second)] - expected).abs().max() > 1e-2


def test_merged_is_what_was_trained(run: Path, config: dict[str, Any], mesh: DeviceMesh) -> None:
    """The adapter merged into the dequantized base gives the trained model; into the bf16 base it does not."""
    adapter = run / "adapter"
    with torch.no_grad():
        trained = loaded(config, mesh, adapter)(IDS).logits.float()
    distances = []
    for quantized in (quantization(config), None):
        merger = Merger(Weights(Path(config["model"]["path"])), adapter, quantized, torch.float32)
        merged = AutoModelForCausalLM.from_pretrained(config["model"]["path"], dtype=torch.float32)
        merged.load_state_dict({name: merger.get(name, torch.bfloat16) for name in merger.base.files})
        with torch.no_grad():
            distances.append(float((merged(IDS).logits - trained).abs().mean()))
    assert distances[0] < distances[1] / 3, distances


def test_storage_dtype_must_be_what_fsdp_gathers(config: dict[str, Any]) -> None:
    wrong = {**config, "bitsandbytes": {**config["bitsandbytes"], "bnb_4bit_quant_storage": "float16"}}
    with pytest.raises(UserError, match="bnb_4bit_quant_storage"):
        quantization(wrong)
