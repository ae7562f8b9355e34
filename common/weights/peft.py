"""PEFT's LoRA adapters: opened together with the base model, as if they had been merged."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.weights import containers
from common.weights.config import read_json
from common.weights.source import Source, open_source
from common.weights.tensors import RawTensor, Tensor, in_dtype
from common.weights.views import Merged, RowsReplaced

CONFIG = "adapter_config.json"
_FILES = ("adapter_model.safetensors", "adapter_model.bin")
_KEY = re.compile(r"^base_model\.model\.(.+?)\.(lora_A|lora_B)(?:\.default)?\.weight$")
_TRAINED_ROWS = re.compile(r"^base_model\.model\.(.+?)\.token_adapter\.trainable_tokens_delta$")
_SAVED = re.compile(r"^base_model\.model\.(.+?)(?:\.modules_to_save(?:\.default)?|\.base_layer)?\.weight$")
# Initialisations that leave the base as it is. The others (pissa, olora, corda, loftq, ...) train beside a base that
# they have changed: what PEFT saves of them fits no base that is on disk.
_PLAIN_STARTS = (None, True, False, "gaussian", "eva", "orthogonal")
# What makes an adapter compute something else than W + scale · B A
_OTHER_KINDS = (
    *("use_dora", "use_qalora", "use_bdlora", "kasa_config", "monteclora_config", "arrow_config", "layer_replication"),
    *("alora_invocation_tokens", "fan_in_fan_out", "lora_bias", "target_parameters"),
)


def is_adapter(path: Path) -> bool:
    """Whether `path` is a folder with a PEFT adapter."""
    return (path / CONFIG).is_file()


def open_merged(path: Path, base: Path | None) -> Source:
    """The base model with the adapter in `path` added to its weights, in fp32, rounded once to the base's type.

    The base is `base`, or the folder that the adapter's config names. Raises UserError when there is
    none, when the adapter does not fit it, or is of a kind other than LoRA.
    """
    file = path / CONFIG
    raw = read_json(file)
    _check_kind(raw, file)
    named = raw.get("base_model_name_or_path")
    folder = base or (Path(named) if isinstance(named, str) and Path(named).exists() else None)
    if folder is None:
        hint = "name it with --base: a folder or a hub id"
        raise UserError("the adapter's base model is not here", file=file, found=named, hint=hint)
    weights, entries = _read(path)
    source = open_source(folder)
    tensors = _merge(source.tensors, entries, raw, weights)
    return replace(source, tensors=tensors, files=(*source.files, weights, file))


def describe(path: Path) -> dict[str, Any]:
    """What the adapter in `path` is, from its config and headers. Raises UserError when it is broken."""
    raw = read_json(path / CONFIG)
    _, entries = _read(path)
    types = {entry.dtype.name if entry.dtype else entry.dtype_name for entry in entries.values()}
    return {
        "format": "peft",
        "kind": raw.get("peft_type"),
        "parameters": sum(math.prod(entry.shape) for entry in entries.values()),
        "dtype": ", ".join(sorted(types)),
        "rank": raw.get("r"),
        "alpha": raw.get("lora_alpha"),
        "target_modules": raw.get("target_modules"),
        "base": raw.get("base_model_name_or_path"),
    }


def _read(path: Path) -> tuple[Path, dict[str, RawTensor]]:
    weights = next((path / name for name in _FILES if (path / name).is_file()), None)
    if weights is None:
        raise UserError("the adapter has no weights", file=path, expected=" or ".join(_FILES))
    entries = containers.read(weights)
    if not entries:
        raise UserError("the adapter holds no tensors", file=weights, hint="it was saved wrongly: save it again")
    return weights, entries


def _check_kind(raw: Mapping[str, Any], file: Path) -> None:
    if raw.get("peft_type") != "LORA":
        raise UserError("only LoRA adapters can be merged", file=file, found=raw.get("peft_type"))
    start = raw.get("init_lora_weights")
    if start not in _PLAIN_STARTS:
        hint = "save it with PEFT's save_pretrained(..., path_initial_model_for_weight_conversion=...)"
        raise UserError("the adapter belongs to a base that its start has changed", file=file, found=start, hint=hint)
    for key in _OTHER_KINDS:
        if raw.get(key):
            raise UserError(f"adapters with {key} cannot be merged", file=file, found=raw[key])
    if raw.get("bias", "none") != "none":
        raise UserError("Llama 3 has no biases to merge into", file=file, found=f"bias {raw['bias']}")


def _merge(
    base: Mapping[str, Tensor], entries: Mapping[str, RawTensor], raw: Mapping[str, Any], file: Path
) -> dict[str, Tensor]:
    merged = dict(base)
    pairs: dict[str, dict[str, Tensor]] = {}
    rows: dict[str, Tensor] = {}
    for key, entry in entries.items():
        if match := _KEY.match(key):
            pairs.setdefault(match[1], {})[match[2]] = entry.open()
        elif match := _TRAINED_ROWS.match(key):
            rows[match[1]] = entry.open()
        elif match := _SAVED.match(key):
            name = match[1] + ".weight"
            if name not in base or base[name].shape != entry.shape:
                raise UserError("the adapter replaces a tensor that the base lacks", file=file, found=key)
            merged[name] = in_dtype(entry.open(), base[name].dtype)
        else:
            raise UserError("the adapter has a tensor of unknown use", file=file, found=key)
    for module, pair in pairs.items():
        name = module + ".weight"
        if name not in base:
            raise UserError("the adapter targets a module that the base lacks", file=file, found=module)
        if len(pair) != 2:
            raise UserError("the adapter holds one of two matrices", file=file, found=f"{module}: {', '.join(pair)}")
        a, b = pair["lora_A"], pair["lora_B"]
        rank = a.shape[0]
        if base[name].shape != (b.shape[0], a.shape[1]) or b.shape[1] != rank:
            found = f"A {list(a.shape)}, B {list(b.shape)}"
            expected = f"a product of {list(base[name].shape)}"
            raise UserError(f"the adapter does not fit {module}", file=file, found=found, expected=expected)
        merged[name] = Merged(merged[name], a, b, _scale(raw, module, rank, file))
    for module, values in rows.items():
        name = module + ".weight"
        ids = _row_ids(raw.get("trainable_token_indices"), module)
        if name not in base or values.shape != (len(ids), *base[name].shape[1:]) or not _within(ids, base[name]):
            found = f"{list(values.shape)} for {len(ids)} tokens"
            raise UserError(f"the adapter's trained rows do not fit {module}", file=file, found=found)
        merged[name] = RowsReplaced(merged[name], ids, values)
    return merged


def _row_ids(stated: Any, module: str) -> list[int]:
    """trainable_token_indices: ids by the end of a module's name, or a list of them for the embedding."""
    if isinstance(stated, dict):
        stated = next((ids for key, ids in stated.items() if f".{module}".endswith(f".{key}")), None)
    return stated if isinstance(stated, list) else []


def _within(ids: list[int], table: Tensor) -> bool:
    return all(type(number) is int and 0 <= number < table.shape[0] for number in ids)


def _scale(raw: Mapping[str, Any], module: str, rank: int, file: Path) -> float:
    """alpha / rank, or alpha / sqrt(rank) with rslora; patterns match the end of a module's name, as in PEFT."""
    alpha = _pattern(raw.get("alpha_pattern") or {}, module, raw.get("lora_alpha"))
    stated = _pattern(raw.get("rank_pattern") or {}, module, raw.get("r"))
    if not isinstance(alpha, int | float) or stated != rank:
        raise UserError("the adapter's config does not match its weights", file=file, found=f"rank {rank}, r {stated}")
    return float(alpha) / (math.sqrt(rank) if raw.get("use_rslora") else rank)


def _pattern(patterns: Mapping[str, Any], module: str, default: Any) -> Any:
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default
