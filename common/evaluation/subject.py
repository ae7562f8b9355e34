"""Which model is asked: its folders, how it is loaded, and how it was trained to be asked."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from common.errors import UserError

CONFIG = "config.json"
ADAPTER_CONFIG = "adapter_config.json"
GENERATION_CONFIG = "generation_config.json"
PLAN = "plan.yaml"
META = Path("data") / "meta.json"
CARD = "README.md"
_CARD_TEMPLATE = re.compile(r"Prompt template: `([a-z0-9_]+)`")


@dataclass(frozen=True)
class Subject:
    """A model folder in Hugging Face layout, with or without an adapter on it."""

    model: Path
    adapter: Path | None
    run: Path | None
    """The run directory that it stands in."""
    context: int
    """Tokens of prompt and answer together."""
    eos_ids: tuple[int, ...]
    plan: dict[str, Any] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)
    """RUN/data/meta.json: how the training data were made."""

    @property
    def template(self) -> str | None:
        """The template that it was trained with, where the run or the model's card says it."""
        if "template" in self.meta:
            return str(self.meta["template"])
        for folder in (self.adapter, self.model):
            card = folder / CARD if folder else None
            if card and card.is_file() and (match := _CARD_TEMPLATE.search(card.read_text(encoding="utf-8"))):
                return match[1]
        return None

    @property
    def system(self) -> str | None:
        """The system message of conversations that have none."""
        value = self.meta.get("system")
        return value if isinstance(value, str) else None

    @property
    def quantization(self) -> dict[str, Any] | None:
        """How the base was quantized when the adapter was trained on it; None where it was not."""
        config = self.plan.get("config", {})
        if self.adapter is None or not config.get("model", {}).get("quantized"):
            return None
        quantization = config.get("bitsandbytes")
        return quantization if isinstance(quantization, dict) else None

    @property
    def dtype(self) -> str:
        """The dtype of an adapter's base as it was trained on; else as the weights are stored."""
        dtype = self.plan.get("settings", {}).get("model", {}).get("dtype")
        return str(dtype) if self.adapter is not None and dtype else "auto"


def find(path: Path, adapter: Path | None = None) -> Subject:
    """The subject in `path`: a model folder, or an adapter folder whose base is found; or `adapter` on `path`.

    Raises UserError for a folder that is missing or is neither, and for an adapter without its base.
    """
    for folder in (path, adapter):
        if folder is not None and not folder.is_dir():
            raise UserError("there is no such folder", file=folder)
    if adapter is None and (path / ADAPTER_CONFIG).is_file():
        adapter = path
        path = _base(path)
    if adapter is not None and not (adapter / ADAPTER_CONFIG).is_file():
        raise UserError(f"is no PEFT adapter: it has no {ADAPTER_CONFIG}", file=adapter)
    if not (path / CONFIG).is_file():
        inside = [name for name in ("model", "adapter") if (path / name).is_dir()]
        hint = f"did you mean {path / inside[0]}?" if inside else "copy it from the original model"
        raise UserError(f"is no model: it has neither {CONFIG} nor {ADAPTER_CONFIG}", file=path, hint=hint)
    run = _run(adapter or path)
    config = _json(path / CONFIG)
    generation = _json(path / GENERATION_CONFIG) if (path / GENERATION_CONFIG).is_file() else {}
    context = config.get("max_position_embeddings")
    if not isinstance(context, int):
        raise UserError("states no max_position_embeddings", file=path / CONFIG)
    return Subject(
        model=path,
        adapter=adapter,
        run=run,
        context=context,
        eos_ids=_ids(generation.get("eos_token_id")) or _ids(config.get("eos_token_id")),
        plan=_plan(run) if run else {},
        meta=_json(run / META) if run and (run / META).is_file() else {},
    )


def _base(adapter: Path) -> Path:
    run = _run(adapter)
    named = _json(adapter / ADAPTER_CONFIG).get("base_model_name_or_path")
    # A run directory that was moved or copied still has its base; the path in the adapter is the old one
    if run and (run / "weights" / CONFIG).is_file():
        return run / "weights"
    if isinstance(named, str) and (Path(named) / CONFIG).is_file():
        return Path(named)
    hint = "give the base with --model and this folder with --adapter"
    raise UserError("the adapter's base model is not here", file=adapter / ADAPTER_CONFIG, found=named, hint=hint)


def _run(folder: Path) -> Path | None:
    parent = folder.resolve().parent
    return parent if (parent / PLAN).is_file() else None


def _plan(run: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load((run / PLAN).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        content = None
    if not isinstance(content, dict):
        raise UserError("is not a plan of a run", file=run / PLAN)
    return content


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError("is not JSON", file=file, found=str(error)) from None
    if not isinstance(content, dict):
        raise UserError("holds no JSON object", file=file, found=type(content).__name__)
    return content


def _ids(value: Any) -> tuple[int, ...]:
    if isinstance(value, int):
        return (value,)
    return tuple(item for item in value if isinstance(item, int)) if isinstance(value, list) else ()
