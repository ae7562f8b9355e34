"""The golden model, adapter and prepared data as folders. Needs the light environment."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from common import golden, tokenizer
from common.data.arrow_dataset import ArrowWriter
from common.data.packing import PackedRows
from common.errors import RunError
from common.files import whole_directory, write_json
from common.golden import batches
from common.weights import dtypes, hugging_face, tiny
from common.weights.config import LlamaConfig, tensor_shapes
from common.weights.dtypes import Array
from common.weights.source import open_source
from common.weights.tensors import Held, Tensor
from common.weights.tokenizer_files import BASE, special_ids
from common.weights.writing import write_file

SEED = 3
ADAPTER_SEED = 4
RANK = 8
ALPHA = 16
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def write(folder: Path) -> None:
    """Write model/, adapter/ and data/ into `folder`, whole or not at all.

    Raises RunError when the weights are not those of the reference: the curves would mean nothing.
    """
    with whole_directory(folder) as partial:
        found = _write_weights(partial, folder)
        if found != (expected := golden.read().versions["weights"]):
            raise RunError("this machine's numpy makes other weights of the seed", found=found, expected=expected)
        _write_data(golden.read(), partial / "data")


def write_new(folder: str) -> str:
    """For make.py: the batches' files anew, model/ and adapter/ into `folder`; returns the weights' digest."""
    _, bos, eos, _ = special_ids(tokenizer.TINY, BASE)
    for file, values in zip((golden.INPUT_IDS, golden.LABELS), batches.make(bos, eos), strict=True):
        np.save(file, values)
    return _write_weights(Path(folder), Path(folder))


def _write_weights(into: Path, final: Path) -> str:
    config = tiny.make(into / "model", seed=SEED, dtype="fp32")
    weights = adapter(config)
    _write_adapter(weights, into / "adapter", final / "model")
    return digest(into / "model", weights)


def adapter(config: LlamaConfig) -> dict[str, Array]:
    """LoRA weights by PEFT's names, fp32: A (rank, in) uniform in ±1/sqrt(in), B (out, rank) zero."""
    random = np.random.RandomState(ADAPTER_SEED)
    weights: dict[str, Array] = {}
    for name, shape in tensor_shapes(config).items():
        if name.split(".")[-2] not in TARGETS:
            continue
        module = "base_model.model." + name.removesuffix(".weight")
        bound = shape[1] ** -0.5
        weights[f"{module}.lora_A.weight"] = random.uniform(-bound, bound, (RANK, shape[1])).astype(np.float32)
        weights[f"{module}.lora_B.weight"] = np.zeros((shape[0], RANK), np.float32)
    return weights


def digest(model: Path, adapter_weights: dict[str, Array]) -> str:
    """What identifies the values of model and adapter."""
    found = hashlib.sha256()
    for name, tensor in sorted(open_source(model).tensors.items()):
        found.update(name.encode())
        for block in tensor.blocks():
            found.update(np.ascontiguousarray(block).tobytes())
    for name, values in sorted(adapter_weights.items()):
        found.update(name.encode() + values.tobytes())
    return "sha256:" + found.hexdigest()


def _write_adapter(weights: dict[str, Array], folder: Path, base: Path) -> None:
    folder.mkdir()
    tensors: dict[str, Tensor] = {name: Held(dtypes.FP32, values) for name, values in weights.items()}
    write_file(folder, hugging_face.output("adapter_model.safetensors", tensors, "pt"), report=lambda _: None)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base),
        "r": RANK,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.0,
        "target_modules": list(TARGETS),
        "bias": "none",
    }
    write_json(folder / "adapter_config.json", config)


def _write_data(read: golden.Golden, folder: Path) -> None:
    ids, labels = read.input_ids.ravel(), read.labels.ravel()
    rows = golden.STEPS * golden.ROWS
    positions: npt.NDArray[np.int32] = np.tile(np.arange(golden.LENGTH, dtype=np.int32), rows)
    offsets = np.arange(rows + 1, dtype=np.int64) * golden.LENGTH
    with ArrowWriter(folder / "train") as writer:
        writer.write(PackedRows(ids, labels, positions, offsets, documents=rows))
    write_json(folder / "meta.json", {"template": "golden", "format": "arrow", "train": writer.summary()})
