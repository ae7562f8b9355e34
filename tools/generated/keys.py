"""The keys of recipe.yaml and platform.yaml: a JSON Schema for editors and a table for people."""

from __future__ import annotations

import json
from typing import Any

import pydantic

from common.platform import Platform
from common.recipe import Recipe
from common.settings import SECTIONS
from tools.generated.tables import code, table

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def recipe_schema() -> str:
    return _schema(Recipe, "recipe.yaml")


def platform_schema() -> str:
    return _schema(Platform, "platform.yaml")


def _schema(model: type[pydantic.BaseModel], title: str) -> str:
    schema = {"$schema": DIALECT, **model.model_json_schema(), "title": title}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def recipe_keys() -> str:
    return _keys(Recipe)


def platform_keys() -> str:
    return _keys(Platform)


def _keys(model: type[pydantic.BaseModel]) -> str:
    """Every key that has a sentence of its own, with its type."""
    schema = model.model_json_schema()
    rows = list(_rows(schema, schema, ""))
    return table(["Key", "Type", "Meaning"], ([code(key), kind, meaning] for key, kind, meaning in rows))


def _rows(node: dict[str, Any], root: dict[str, Any], prefix: str) -> list[tuple[str, str, str]]:
    rows = []
    for name, field in node.get("properties", {}).items():
        inner, kind, more = _resolve(field, root)
        rows.append((prefix + name, kind, field.get("description", "")))
        if inner and name != "presets":
            rows += _rows(inner, root, f"{prefix}{name}{more}.")
        elif inner:  # a preset's sections are those of the recipe
            own = {key: value for key, value in inner["properties"].items() if key not in SECTIONS}
            rows += _rows({"properties": own}, root, f"{prefix}{name}{more}.")
    return rows


def _resolve(field: dict[str, Any], root: dict[str, Any]) -> tuple[dict[str, Any] | None, str, str]:
    """The model inside a field, the field's type in words, and how the path to the model goes on."""
    if "$ref" in field:
        return root["$defs"][field["$ref"].rsplit("/", 1)[1]], "mapping", ""
    if "anyOf" in field:
        options = [_resolve(each, root) for each in field["anyOf"]]
        kinds = " or ".join(kind for _, kind, _ in options)
        inner, _, more = next((each for each in options if each[0]), options[0])
        return inner, kinds, more
    if field.get("type") == "array":
        inner, kind, more = _resolve(field["items"], root)
        return inner, f"list of {kind}" if inner is None else "list of mappings", f"[]{more}"
    if field.get("type") == "object" and isinstance(field.get("additionalProperties"), dict):
        inner, kind, more = _resolve(field["additionalProperties"], root)
        return inner, f"mapping to {kind}" if inner is None else "mapping to mappings", f".NAME{more}"
    if "enum" in field:
        return None, ", ".join(map(code, field["enum"])), ""
    return None, str(field.get("type", "anything")), ""
