"""Hugging Face's and MindSpore's safetensors: shards of a given size and their index."""

from __future__ import annotations

from collections.abc import Mapping

from common.weights import safetensors_header
from common.weights.tensors import Tensor
from common.weights.writing import OutputFile, Piece

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
DEFAULT_SHARD_SIZE = 2 * 10**9  # bytes


def plan(
    tensors: Mapping[str, Tensor], shard_size: int = DEFAULT_SHARD_SIZE, *, framework: str = "pt"
) -> tuple[list[OutputFile], dict[str, object] | None]:
    """The files that hold `tensors` in shards of at most `shard_size` bytes, and the index's content.

    One shard is called model.safetensors and has no index (None). A tensor larger than
    `shard_size` has a shard of its own. `framework` is what the header's metadata names: pt or ms.
    """
    shards: list[dict[str, Tensor]] = [{}]
    filled = 0
    for name, tensor in tensors.items():
        if shards[-1] and filled + tensor.nbytes > shard_size:
            shards.append({})
            filled = 0
        shards[-1][name] = tensor
        filled += tensor.nbytes
    if len(shards) == 1:
        return [output(SINGLE, shards[0], framework)], None
    names = [f"model-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)]
    weight_map = {tensor: file for file, shard in zip(names, shards, strict=True) for tensor in shard}
    total = sum(tensor.nbytes for tensor in tensors.values())
    index: dict[str, object] = {"metadata": {"total_size": total}, "weight_map": weight_map}
    return [output(name, shard, framework) for name, shard in zip(names, shards, strict=True)], index


def output(name: str, tensors: Mapping[str, Tensor], framework: str) -> OutputFile:
    """One safetensors file called `name` that holds `tensors`."""
    described = [(key, tensor.dtype.safetensors, tensor.shape) for key, tensor in tensors.items()]
    header = safetensors_header.encode(described, {"format": framework})
    pieces, offset = [], len(header)
    for tensor in tensors.values():
        pieces.append(Piece(offset, tensor))
        offset += tensor.nbytes
    return OutputFile(name, offset, ((0, header),), tuple(pieces))
