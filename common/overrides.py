"""Overrides: --set section.key=value on a recipe's settings, --set config.a.b=value on the framework's."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pydantic
import yaml

from common.errors import UserError, did_you_mean
from common.schema import explain
from common.settings import SECTIONS, Settings
from common.yaml_file import Document, parse_scalar

CONFIG = "config"


def parse(assignments: Iterable[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings' and the configuration's overrides, {"train.seed": 1} each.

    Raises UserError for one that is not KEY=VALUE or names no section.
    """
    settings: dict[str, Any] = {}
    config: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        section, dot, rest = key.partition(".")
        if not equals or not dot or not rest:
            raise UserError("--set takes SECTION.KEY=VALUE", found=assignment, expected="for example train.seed=1")
        if section == CONFIG:
            config[rest] = _value(key, text)
        elif section in SECTIONS:
            settings[key] = _value(key, text)
        else:
            known = [*SECTIONS, CONFIG]
            raise UserError(
                f"--set {key}: there is no section {section!r}",
                expected=", ".join(known),
                hint=did_you_mean(section, known),
            )
    return settings, config


def _value(key: str, text: str) -> Any:
    try:
        return parse_scalar(text)
    except yaml.YAMLError as error:
        problem = error.problem if isinstance(error, yaml.MarkedYAMLError) else "a character that YAML does not know"
        raise UserError(
            f"--set {key}: the value is not YAML: {problem}",
            found=text,
            hint=f"quote it: --set {key}='\"...\"'",
        ) from None


def apply_settings(stated: dict[str, dict[str, Any]], changes: dict[str, Any]) -> Settings:
    """The recipe's settings with `changes`. Raises UserError for a key that the recipe does not state."""
    merged = {section: dict(values) for section, values in stated.items()}
    for key, value in changes.items():
        section, name = key.split(".", 1)
        known = [f"{section}.{each}" for each in merged.get(section, {})]
        if key not in known:
            everywhere = [f"{part}.{each}" for part, values in merged.items() for each in values]
            same_name = [each for each in everywhere if each.partition(".")[2] == name]
            hint = did_you_mean(key, same_name or known) or did_you_mean(key, everywhere)
            raise UserError(
                f"--set {key}: this recipe has no such key",
                expected=None if hint else ", ".join(known) or "nothing",
                hint=hint,
            )
        merged[section][name] = value
    try:
        return Settings.model_validate(merged)
    except pydantic.ValidationError as error:
        wrong = explain(Settings, error.errors()[0], Document(Path("--set"), merged, {}))
        raise UserError(f"--set {wrong.problem}", found=wrong.found, expected=wrong.expected) from None


def apply_config(config: dict[str, Any], changes: dict[str, Any], file: Path) -> dict[str, Any]:
    """The framework's configuration with `changes`; a section that is not there is an error.

    A new key within a section is let through: the framework has more options than the file spells out,
    and refuses the ones it does not know.
    """
    for key, value in changes.items():
        *path, last = key.split(".")
        target = config
        for index, part in enumerate(path):
            inner = target.get(part)
            if not isinstance(inner, dict):
                where = ".".join([CONFIG, *path[: index + 1]])
                raise UserError(
                    f"--set {CONFIG}.{key}: {file.name} has no section {where}",
                    file=file,
                    hint=did_you_mean(part, target),
                )
            target = inner
        own = [name for name in target if ".".join([*path, name]) not in changes]  # not what --set brought itself
        near = did_you_mean(last, own)
        if last not in target and near and _almost_equal(last, own):
            raise UserError(f"--set {CONFIG}.{key}: {file.name} has no such key", file=file, hint=near)
        if not path and last not in target:
            raise UserError(f"--set {CONFIG}.{key}: {file.name} has no such key", file=file, expected=", ".join(target))
        target[last] = value
    return config


def laid_over(config: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`config` with what differs on a platform: sections are merged, values replaced, null takes a key out."""
    made = dict(config)
    for key, value in over.items():
        if value is None:
            made.pop(key, None)
        elif isinstance(value, dict) and isinstance(made.get(key), dict):
            made[key] = laid_over(made[key], value)
        else:
            made[key] = value
    return made


def _almost_equal(word: str, known: Iterable[str]) -> bool:
    import difflib

    return bool(difflib.get_close_matches(word, list(known), n=1, cutoff=0.87))
