"""Open a model in any format that is read, as Hugging Face's tensors, from headers alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.errors import UserError
from common.weights import config as configs
from common.weights import containers, layouts, parts, translate
from common.weights.config import CONFIG_FILE, LlamaConfig, tensor_shapes
from common.weights.dtypes import DTYPES
from common.weights.tensors import RawTensor, Tensor

_INDEX_SUFFIX = ".index.json"
_RANK = re.compile(r"^rank_(\d+)$")
_META_PART = re.compile(r"^consolidated\.(\d+)\.pth$")
_STEP = re.compile(r"(\d+)")
_INNER_FOLDERS = ("modeling", "model")  # where ColossalAI's checkpoints keep the model


@dataclass(frozen=True)
class Files:
    """A model's files: `groups` has one list a rank, one alone when the model is not split over ranks."""

    format: str
    folder: Path
    groups: tuple[tuple[Path, ...], ...]

    @property
    def all(self) -> list[Path]:
        """Every file."""
        return [file for group in self.groups for file in group]


@dataclass(frozen=True)
class Source:
    """An open model. `tensors`: Hugging Face's names and layout, in the model's order, unread."""

    format: str
    folder: Path  # where the config and the tokenizer are looked for
    files: tuple[Path, ...]
    config: LlamaConfig
    tensors: dict[str, Tensor]


def find(path: Path) -> Files:
    """The weights files of the model in `path`, a folder or a file; the format is a first guess by names.

    Raises UserError when there is none, or an index names a file that is missing.
    """
    if path.is_file():
        return Files("", path.parent, ((path,),))
    if not path.is_dir():
        raise UserError("no such model", file=path, hint="give a model folder, a weights file or a hub id")
    ranks = sorted((int(m[1]), child) for child in path.iterdir() if child.is_dir() and (m := _RANK.match(child.name)))
    if ranks:
        if [number for number, _ in ranks] != list(range(len(ranks))):
            found = ", ".join(child.name for _, child in ranks)
            raise UserError("rank folders are missing", file=path, found=found, expected="rank_0, rank_1, ...")
        return Files("mindspore-ranks", path, tuple((_latest(child),) for _, child in ranks))
    meta = sorted(child for child in path.iterdir() if _META_PART.match(child.name))
    indexes = sorted(path.glob("*" + _INDEX_SUFFIX))
    if indexes and not meta:
        chosen = next((index for index in indexes if "safetensors" in index.name), indexes[0])
        names = sorted(set(weight_map(chosen).values()))
        for name in names:
            if not (path / name).is_file():
                hint = "download it again"
                raise UserError("the index names a shard that is missing", file=chosen, found=name, hint=hint)
        return Files("", path, (tuple(path / name for name in names),))
    if meta:
        if [int(_META_PART.match(file.name)[1]) for file in meta] != list(range(len(meta))):  # type: ignore[index]
            raise UserError("parts are missing", file=path, found=", ".join(file.name for file in meta))
        return Files("meta", path, tuple((file,) for file in meta))
    for suffix in containers.SUFFIXES:
        weights = sorted(child for child in path.glob("*" + suffix) if child.name != "training_args.bin")
        if suffix == ".safetensors" and weights:
            return Files("", path, (_whole_set(weights, path),))
        if weights:
            return Files("", path, ((_only(weights, path),),))
    for name in _INNER_FOLDERS:
        if (path / name).is_dir():
            return find(path / name)
    expected = "safetensors, consolidated.00.pth, pytorch_model.bin, .ckpt or rank_0"
    raise UserError("the folder has no weights", file=path, expected=expected)


def weight_map(index: Path) -> dict[str, str]:
    """Tensor name → file name of an index. Raises UserError when it is broken or leaves its folder."""
    weights = configs.read_json(index).get("weight_map")
    if not isinstance(weights, dict) or not weights:
        raise UserError("the index has no weight_map", file=index)
    for name, file in weights.items():
        if not isinstance(file, str) or Path(file).name != file:
            # A path that leaves the folder would read a file that the person did not name.
            raise UserError(f"the index places {name!r} outside of its folder", file=index, found=file)
    return weights


def _whole_set(files: list[Path], folder: Path) -> tuple[Path, ...]:
    """Safetensors files without an index: one, or a numbered set (model-00001-of-00003) that is whole."""
    numbered = [re.search(r"-(\d+)-of-(\d+)\.", file.name) for file in files]
    if len(files) == 1 and numbered[0] is None:
        return tuple(files)
    counts = {int(match[2]) for match in numbered if match is not None}
    if None in numbered or counts != {len(files)}:
        found = ", ".join(file.name for file in files[:4])
        raise UserError("several weights files and no index", file=folder, found=found, hint="give the file itself")
    return tuple(files)


def _only(files: list[Path], folder: Path) -> Path:
    if len(files) > 1:
        found = ", ".join(file.name for file in files[:4])
        ranks = all(file.stem.isdigit() for file in files)  # nnScaler: 0.ckpt, 1.ckpt, ...
        hint = layouts.NNSCALER_HINT if ranks else "give the file itself"
        raise UserError("several checkpoints in one folder", file=folder, found=found, hint=hint)
    return files[0]


def _latest(folder: Path) -> Path:
    """The checkpoint in a rank folder, of several the one with the largest numbers in its name."""
    found = [child for child in folder.iterdir() if child.suffix in (".ckpt", ".safetensors")]
    if not found:
        raise UserError("the rank folder has no checkpoint", file=folder, expected="a .ckpt or .safetensors file")
    return max(found, key=lambda file: [int(number) for number in _STEP.findall(file.name)])


def open_source(path: Path, config: Path | None = None) -> Source:
    """The model in `path`: a folder or a weights file of any format that is read.

    `config` (config.json, a MindFormers yaml, params.json or a folder with one) replaces the one
    beside the weights. Raises UserError for anything missing, broken or contradictory.
    """
    files = find(path)
    ranks = [_merge(group) for group in files.groups]
    names = dict.fromkeys(name for rank in ranks for name in rank)
    layout, prefix = layouts.recognise(names, path)
    opened = [_model_part(rank, prefix) for rank in ranks]
    model = _config(config, files.folder, layout, opened)
    whole = layouts.shapes_in(layout, model)
    tensors = {name: raw.open() for name, raw in opened[0].items()}
    if len(opened) > 1:
        join = parts.join_meta if layout == layouts.META else parts.join_ranks
        tensors = join([{name: raw.open() for name, raw in rank.items()} for rank in opened], whole, path)
    tensors = layouts.to_hugging_face(tensors, layout, model)
    if model.tie_word_embeddings:
        tensors.pop(layouts.HEAD, None)
    shapes = tensor_shapes(model)
    check_shapes({name: tensor.shape for name, tensor in tensors.items()}, shapes, path)
    ordered = {name: tensors[name] for name in shapes}
    model = model.with_dtype(next(iter(ordered.values())).dtype.name)
    return Source(_format(files, layout, prefix), files.folder, tuple(files.all), model, ordered)


def _merge(group: Sequence[Path]) -> dict[str, RawTensor]:
    merged: dict[str, RawTensor] = {}
    for file in group:
        for name, raw in containers.read(file).items():
            if name in merged:
                other = merged[name].extents[0].file.name
                raise UserError(f"tensor {name!r} is in two shards", file=file, found=other)
            merged[name] = raw
    for index in group[0].parent.glob("*" + _INDEX_SUFFIX) if len(group) > 1 else ():
        for name, shard in weight_map(index).items():
            if shard in {file.name for file in group} and (
                name not in merged or merged[name].extents[0].file.name != shard
            ):
                raise UserError(f"the index names tensor {name!r}, which its shard lacks", file=index, found=shard)
    return merged


def _model_part(raw: Mapping[str, RawTensor], prefix: str) -> dict[str, RawTensor]:
    # Single numbers are a trainer's counters: no weight of a Llama is one.
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in raw.items()
        if not layouts.is_training_state(name) and tensor.shape not in ((), (1,))
    }


def _format(files: Files, layout: str, prefix: str) -> str:
    if files.format:
        return files.format
    kind = containers.kind_of(files.all[0])
    if layout == layouts.MINDSPORE:
        return "mindspore" if kind == containers.CKPT else "mindspore-safetensors"
    if layout == layouts.META:
        return "meta"
    if prefix or files.all[0].suffix == ".ckpt":
        return "trainer"
    return "hf" if kind == containers.SAFETENSORS else "hf-bin"


def check_shapes(found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], where: Path) -> None:
    """Compare tensor names and shapes. Raises UserError for a missing, an extra or a misshapen tensor."""
    _refuse([name for name in expected if name not in found], "is missing", where)
    _refuse([name for name in found if name not in expected], "does not belong to this model", where)
    for name, shape in expected.items():
        if found[name] != shape:
            problem = f"tensor {name!r} has another shape than the config says"
            raise UserError(problem, file=where, found=list(found[name]), expected=list(shape))


def _refuse(names: Sequence[str], what: str, where: Path) -> None:
    if names:
        more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
        hint = "does the config belong to these weights, and is the download complete?"
        raise UserError(f"tensor {names[0]!r} {what}{more}", file=where, hint=hint)


def _config(given: Path | None, folder: Path, layout: str, opened: Sequence[Mapping[str, RawTensor]]) -> LlamaConfig:
    candidates: Iterable[Path]
    if given is not None and not given.exists():
        raise UserError("no such config", file=given)
    if given is not None and given.is_file():
        candidates = [given]
    else:
        place = given or folder
        candidates = [place / CONFIG_FILE, *sorted(place.glob("*.yaml")), place / translate.PARAMS]
    for file in candidates:
        if not file.is_file():
            continue
        if file.suffix in (".yaml", ".yml"):
            if file == given or translate.has_mindformers_config(file):
                return translate.from_mindformers(file)
        elif file.name == translate.PARAMS:
            return _from_params(file, layout, opened)
        else:
            return configs.from_hugging_face(configs.read_json(file), file)
    raise UserError(
        "the weights have no config beside them",
        file=given or folder,
        expected=f"{CONFIG_FILE}, a MindFormers yaml or {translate.PARAMS}",
        hint="copy the original model's config.json there, or convert the weights first and name it with --config",
    )


def _from_params(file: Path, layout: str, opened: Sequence[Mapping[str, RawTensor]]) -> LlamaConfig:
    """params.json lacks the feed-forward size, often the vocabulary, and whether the tables are tied."""
    gate = layouts.name_in(layout, "model.layers.0.mlp.gate_proj.weight")
    table, head = layouts.name_in(layout, layouts.EMBEDDING), layouts.name_in(layout, layouts.HEAD)
    first = opened[0]
    for name in (gate, table):
        if name not in first:
            raise UserError(f"tensor {name!r} is missing", file=file.parent)
    hidden = json.loads(file.read_text(encoding="utf-8")).get("dim")
    count = len(opened)
    vocabulary = first[table].shape[0] * (count if first[table].shape[1] == hidden else 1)
    tied = head not in first or _same(first[table], first[head])
    return translate.from_params(file, ffn=first[gate].shape[0] * count, vocabulary=vocabulary, tied=tied)


def _same(one: RawTensor, other: RawTensor) -> bool:
    if one.shape != other.shape or one.dtype is not other.dtype:
        return False
    if one.extents == other.extents and one.strides == other.strides:
        return True
    return all(np.array_equal(a, b) for a, b in zip(one.open().blocks(), other.open().blocks(), strict=True))


def dtype_counts(source: Source) -> dict[str, int]:
    """Parameters by dtype name (fp32, bf16, fp16), the most frequent first."""
    counts: dict[str, int] = dict.fromkeys(DTYPES, 0)
    for tensor in source.tensors.values():
        counts[tensor.dtype.name] += tensor.nbytes // tensor.dtype.itemsize
    return {name: count for name, count in sorted(counts.items(), key=lambda item: -item[1]) if count}
