"""The Hugging Face layout: config.json and safetensors, one file or shards with an index."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from common.errors import UserError
from common.weights import config as configs
from common.weights import dtypes, safetensors_header
from common.weights.dtypes import DType
from common.weights.safetensors_header import Entry
from common.weights.tensors import Extent, Stored, Tensor
from common.weights.writing import OutputFile, Piece

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
DEFAULT_SHARD_SIZE = 2 * 10**9  # bytes
_TYPES: dict[str, DType] = {dtype.safetensors: dtype for dtype in dtypes.DTYPES.values()}


@dataclass(frozen=True)
class Located:
    """A tensor's header entry and the file it is in."""

    entry: Entry
    file: Path

    def open(self) -> Tensor:
        """The tensor, unread. Raises UserError for a type that is not a weight's (int8, float64, ...)."""
        dtype = _TYPES.get(self.entry.dtype)
        if dtype is None:
            raise UserError(
                f"tensor {self.entry.name!r} has a dtype that Llama 3 weights do not have",
                file=self.file,
                found=self.entry.dtype,
                expected=", ".join(_TYPES),
                hint="quantized weights cannot be converted: take the original model",
            )
        return Stored(dtype, self.entry.shape, (Extent(self.file, self.entry.offset, self.entry.length),))


def shard_files(folder: Path) -> list[Path]:
    """The safetensors files that make up the model in `folder`, by the index where there is one.

    Raises UserError when there is none, or when the index is broken or names a file that is missing.
    """
    index = folder / INDEX
    if not index.is_file():
        single = folder / SINGLE
        if single.is_file():
            return [single]
        raise UserError("the folder has no weights", file=folder, expected=f"{SINGLE} or {INDEX}")
    files = []
    for name in sorted(set(_weight_map(index).values())):
        file = folder / name
        if not file.is_file():
            raise UserError("the index names a shard that is missing", file=index, found=name, hint="download it again")
        files.append(file)
    return files


def _weight_map(index: Path) -> dict[str, str]:
    weights = configs.read_json(index).get("weight_map")
    if not isinstance(weights, dict) or not weights:
        raise UserError("the index has no weight_map", file=index)
    for name, file in weights.items():
        if not isinstance(file, str) or Path(file).name != file:
            # A path that leaves the folder would read a file that the person did not name.
            raise UserError(f"the index places {name!r} outside of its folder", file=index, found=file)
    return weights


def locate(folder: Path) -> dict[str, Located]:
    """Every tensor in `folder` by name, from headers alone; files and index are checked against each other."""
    located: dict[str, Located] = {}
    for file in shard_files(folder):
        for name, entry in safetensors_header.read(file).entries.items():
            if name in located:
                raise UserError(f"tensor {name!r} is in two shards", file=file, found=located[name].file.name)
            located[name] = Located(entry, file)
    index = folder / INDEX
    if index.is_file():
        for name, shard in _weight_map(index).items():
            if name not in located or located[name].file.name != shard:
                raise UserError(f"the index names tensor {name!r}, which its shard lacks", file=index, found=shard)
    return located


def check_shapes(found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], where: Path) -> None:
    """Compare tensor names and shapes. Raises UserError for a missing, an extra or a misshapen tensor."""
    missing = [name for name in expected if name not in found]
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise UserError(f"tensor {missing[0]!r} is missing{more}", file=where, hint="compare with the config")
    extra = [name for name in found if name not in expected]
    if extra:
        more = f" (and {len(extra) - 1} more)" if len(extra) > 1 else ""
        raise UserError(f"tensor {extra[0]!r} does not belong to this model{more}", file=where)
    for name, shape in expected.items():
        if found[name] != shape:
            problem = f"tensor {name!r} has another shape than the config says"
            raise UserError(problem, file=where, found=list(found[name]), expected=list(shape))


def without_extras(names: Mapping[str, Located], *, tied: bool) -> dict[str, Located]:
    """Leave out what old writers added and no model needs: rotary tables, and a tied model's lm_head."""
    return {
        name: value
        for name, value in names.items()
        if not name.endswith("rotary_emb.inv_freq") and not (tied and name == "lm_head.weight")
    }


def read(folder: Path) -> tuple[configs.LlamaConfig, dict[str, Tensor]]:
    """The model in `folder`: its config and its tensors, unread, in the model's order.

    Raises UserError for anything missing, broken or contradictory.
    """
    config = configs.read_hugging_face(folder)
    located = without_extras(locate(folder), tied=config.tie_word_embeddings)
    expected = configs.tensor_shapes(config)
    check_shapes({name: item.entry.shape for name, item in located.items()}, expected, folder)
    return config, {name: located[name].open() for name in expected}


def plan(
    tensors: Mapping[str, Tensor], shard_size: int = DEFAULT_SHARD_SIZE
) -> tuple[list[OutputFile], dict[str, object] | None]:
    """The files that hold `tensors` in shards of at most `shard_size` bytes, and the index's content.

    One shard is called model.safetensors and has no index (None). A tensor larger than
    `shard_size` has a shard of its own.
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
        return [_output(SINGLE, shards[0])], None
    names = [f"model-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)]
    weight_map = {tensor: file for file, shard in zip(names, shards, strict=True) for tensor in shard}
    total = sum(tensor.nbytes for tensor in tensors.values())
    index: dict[str, object] = {"metadata": {"total_size": total}, "weight_map": weight_map}
    return [_output(name, shard) for name, shard in zip(names, shards, strict=True)], index


def _output(name: str, tensors: Mapping[str, Tensor]) -> OutputFile:
    described = [(key, tensor.dtype.safetensors, tensor.shape) for key, tensor in tensors.items()]
    header = safetensors_header.encode(described, {"format": "pt"})
    pieces, offset = [], len(header)
    for tensor in tensors.values():
        pieces.append(Piece(offset, tensor))
        offset += tensor.nbytes
    return OutputFile(name, offset, ((0, header),), tuple(pieces))
