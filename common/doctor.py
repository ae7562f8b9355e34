"""Checks before anything is built or written: inputs that would fail later fail now, with the reason."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import UserError
from common.plan import Plan

if TYPE_CHECKING:
    from common.data.sources import Probe

HUB_ID = re.compile(r"(?:[a-z]+:)?[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(?:@[\w.-]+)?")  # @SPLIT of a data set
CHAT_TEMPLATES = ("llama3",)
CHAT_TOKENS = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")


def check_inputs(plan: Plan) -> None:
    """Raise UserError for weights, tokenizer or data that cannot work. Reads headers and beginnings only."""
    check_data(plan)
    check_weights(plan)
    check_template(plan)


def check_data(plan: Plan) -> None:
    for key in ("train", "eval"):
        path = getattr(plan.settings.data, key)
        if path is not None and (_is_local(path) or _must_be_local(f"data.{key}", path)):
            probe_data(plan, path)


def probe_data(plan: Plan, path: str) -> Probe:
    """What the recipe's data are, read as its settings say."""
    from common.data import sources

    data = plan.settings.data
    return sources.probe(path, data.source or "auto", sources.column_names(data.columns))


def check_weights(plan: Plan) -> None:
    from common.weights.inspect import inspect

    path = plan.settings.model.path
    if path != "tiny" and path is not None and (_is_local(path) or _must_be_local("model.path", path)):
        inspect(Path(path))
    if (tokenizer := plan.settings.model.tokenizer) is not None and not _is_local(tokenizer):
        raise UserError("model.tokenizer: there is no such file or folder", file=tokenizer)


def check_template(plan: Plan) -> None:
    """Refuse a chat template on weights that never learnt its tokens.

    In base weights the rows of <|eot_id|> and the header tokens are untrained, and LoRA on the linear
    layers never reaches them: the model would read noise and never learn to stop.
    """
    settings = plan.settings
    if settings.data.template not in CHAT_TEMPLATES or settings.lora.train_chat_tokens:
        return
    if kind(plan) == "base":
        raise UserError(
            f"the template {settings.data.template!r} needs Instruct weights: in these base weights the rows of "
            f"{', '.join(CHAT_TOKENS)} are untrained, LoRA does not reach them, and the model would never stop",
            hint="use --set data.template=human_assistant, Instruct weights, or --set lora.train_chat_tokens=true",
        )


def kind(plan: Plan) -> str | None:
    """base or instruct, as stated, or as the weights' own rows show; None for weights not fetched yet."""
    stated = plan.settings.model.kind
    if stated is not None:
        return stated
    path = plan.settings.model.path
    if path == "tiny":
        return "base"
    if path is None or not _is_local(path):
        return None
    from common.weights.untrained import rows_untrained

    ids = chat_token_ids(Path(path))
    return "base" if ids and rows_untrained(Path(path), ids) else "instruct"


def chat_token_ids(folder: Path) -> list[int]:
    """The ids of the chat template's tokens by the model's tokenizer.json; [] where it cannot tell."""
    file = folder / "tokenizer.json" if folder.is_dir() else folder.parent / "tokenizer.json"
    if not file.exists():
        return []
    added = json.loads(file.read_text(encoding="utf-8")).get("added_tokens", [])
    return [entry["id"] for entry in added if entry["content"] in CHAT_TOKENS]


def _is_local(path: str) -> bool:
    return Path(path).exists()


def _must_be_local(key: str, path: str) -> bool:
    """False for what can be a hub id or a glob; raises UserError for anything else that is not there."""
    if any(character in path for character in "*?[") or (
        HUB_ID.fullmatch(path) and not path.endswith((".json", ".jsonl"))
    ):
        return False
    raise UserError(
        f"{key}: there is no such file or folder", file=path, expected=f"a path, or a hub id (looked from {Path.cwd()})"
    )
