"""Strict pydantic models, and their errors as one message with file, line and the nearest right key."""

from __future__ import annotations

import types
import typing
from typing import Any, TypeVar

import pydantic

from common.errors import UserError, did_you_mean
from common.yaml_file import Document, Location


class Strict(pydantic.BaseModel):
    """A model in which an unknown key is an error and a value is not silently converted."""

    model_config = pydantic.ConfigDict(
        extra="forbid", strict=True, allow_inf_nan=False, frozen=True, use_attribute_docstrings=True
    )


Model = TypeVar("Model", bound=pydantic.BaseModel)


def validate(model: type[Model], document: Document) -> Model:
    """`document` as `model`. Raises UserError for the first thing that is wrong, with its file and line."""
    try:
        return model.model_validate(document.value)
    except pydantic.ValidationError as error:
        # An unknown key first: it is why the key that was meant is missing
        first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
        raise explain(model, first, document) from None


def explain(model: type[pydantic.BaseModel], first: Any, document: Document) -> UserError:
    """One pydantic error as a UserError."""
    location: Location = first["loc"]
    line = document.line(location)
    key = ".".join(str(part) for part in location)
    if first["type"] == "extra_forbidden":
        known = keys_at(model, location[:-1])
        hint = did_you_mean(str(location[-1]), known)
        return UserError(
            f"unknown key {key}", file=document.file, line=line, expected=None if hint else ", ".join(known), hint=hint
        )
    if first["type"] == "missing":
        return UserError(f"the key {key} is missing", file=document.file, line=line)
    message = first["msg"].removeprefix("Value error, ")
    key = ".".join(str(part) for part in _stated(location, document.value))
    return UserError(
        f"{key}: {message[0].lower()}{message[1:]}", file=document.file, line=line, found=repr(first["input"])
    )


def _stated(location: Location, value: Any) -> Location:
    """The part of `location` that the document has: for a union, pydantic appends the kind that it tried."""
    for index, part in enumerate(location):
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return location[:index]
    return location


def keys_at(model: type[pydantic.BaseModel], location: Location) -> list[str]:
    """The keys that `model` has at `location`."""
    current: Any = model
    for part in location:
        current = _inside(current, part)
    return list(current.model_fields) if _is_model(current) else []


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, pydantic.BaseModel)


def _inside(kind: Any, part: str | int) -> Any:
    if _is_model(kind):
        field = kind.model_fields.get(part)
        return _without_none(field.annotation) if field else None
    arguments = typing.get_args(kind)
    return _without_none(arguments[-1]) if arguments else None


def _without_none(kind: Any) -> Any:
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return next(argument for argument in typing.get_args(kind) if argument is not type(None))
    return kind
