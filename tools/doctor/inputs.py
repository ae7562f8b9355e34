"""What the run reads: weights, tokenizer, ids, data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from common import doctor
from common import tokenizer as tokenizers
from common.errors import UserError
from common.plan import Plan
from common.weights import tokenizer_files
from common.weights.config import read_hugging_face
from common.weights.inspect import inspect
from tools.doctor.line import Line, passed, tried


def template(plan: Plan) -> Line:
    return tried("template", lambda: _template(plan))


def weights(plan: Plan) -> Iterator[Line]:
    path = plan.settings.model.path
    if path == "tiny":
        yield passed("weights", "tiny, made from a seed")
    elif path is not None and Path(path).exists():
        yield tried("weights", lambda: _weights(Path(path)))
        if (Path(path) / "config.json").is_file():
            yield tried("ids of bos, eos, pad", lambda: _ids(Path(path)))
    else:
        yield tried("weights", lambda: _fetched(plan))
    stated = plan.settings.model.tokenizer
    if stated is not None:
        yield tried("tokenizer", lambda: f"{tokenizers.load(stated).vocabulary_size:,} tokens in {stated}")
    elif path is not None and path != "tiny" and Path(path).is_dir():
        yield tried("tokenizer", lambda: f"{tokenizers.load(path).vocabulary_size:,} tokens")


def _weights(path: Path) -> str:
    summary = inspect(path)
    return f"{summary.parameters:,} parameters, {summary.format}, {summary.dtype}"


def _fetched(plan: Plan) -> str:
    doctor.check_weights(plan)  # raises for what is neither a folder nor a hub id
    return f"{plan.settings.model.path} is fetched by its hub id"


def _ids(folder: Path) -> str:
    """config.json, generation_config.json and the tokenizer must name the same tokens."""
    config = read_hugging_face(folder)
    tokenizer_files.check(folder, config)
    file = folder / "generation_config.json"
    if file.is_file():
        generation = json.loads(file.read_text(encoding="utf-8"))
        ends = generation.get("eos_token_id")
        if ends is not None and not set(config.eos_token_ids) <= set(ends if isinstance(ends, list) else [ends]):
            raise UserError(
                "generation does not stop at the model's own end of text",
                file=file,
                found=f"eos_token_id {ends}",
                expected=f"with {list(config.eos_token_ids)}, as in config.json",
                hint="put the ids of config.json into generation_config.json",
            )
    if config.pad_token_id is not None and config.pad_token_id in config.eos_token_ids:
        raise UserError(
            "the pad token is an end token: whoever masks padding masks the end of every answer",
            file=folder / "config.json",
            found=f"pad_token_id {config.pad_token_id}",
            hint="name another token, as <|finetune_right_pad_id|>",
        )
    return f"{config.bos_token_id}, {list(config.eos_token_ids)}, {config.pad_token_id}: config and tokenizer agree"


def data(plan: Plan) -> Iterator[Line]:
    for key in ("train", "eval"):
        path = getattr(plan.settings.data, key)
        if path is None:
            continue
        if Path(path).exists():
            yield tried(f"data.{key}", partial(_data, plan, path))
        else:
            yield tried(f"data.{key}", partial(_named, plan, path))


def _data(plan: Plan, path: str) -> str:
    found = doctor.probe_data(plan, path)
    return f"{len(found.files)} {'file' if len(found.files) == 1 else 'files'}, layout {found.layout}"


def _named(plan: Plan, place: str) -> str:
    doctor.check_data(plan)  # raises for what is neither a file, a glob nor a hub id
    return f"{place} is read when the run starts"


def _template(plan: Plan) -> str:
    doctor.check_template(plan)
    return f"{plan.settings.data.template or 'none'}, {doctor.kind(plan) or 'unknown'} weights"
