"""${section.key} references in recipe.yaml's commands and in the framework's configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from common.errors import UserError, did_you_mean

REFERENCE = re.compile(r"\$\{([^{}]*)\}")


class Values:
    """What references may name, as a flat mapping: {"train.seed": 42, "run": "/path", ...}."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)
        self.used: set[str] = set()

    def also(self, **more: Any) -> Values:
        """These values and `more`; what is used of either counts as used here."""
        both = Values({**self._values, **more})
        both.used = self.used
        return both

    def get(self, name: str) -> Any:
        """The value of a reference. Raises UserError when there is none of that name."""
        if name not in self._values:
            raise UserError(f"${{{name}}} names nothing", hint=did_you_mean(name, self._values))
        self.used.add(name)
        return self._values[name]

    def fill(self, value: Any) -> Any:
        """`value` with its references replaced; a string that is one reference takes the value's type."""
        if isinstance(value, Mapping):
            return {key: self.fill(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.fill(item) for item in value]
        if not isinstance(value, str):
            return value
        whole = REFERENCE.fullmatch(value)
        if whole:
            return self.get(whole[1])
        return REFERENCE.sub(lambda match: self._embedded(match[1]), value)

    def _embedded(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            raise UserError(f"${{{name}}} is not set, and a longer text needs it")
        return _word(value)

    def _unset(self, word: str) -> bool:
        return any(self.get(name) is None for name in REFERENCE.findall(word))

    def words(self, run: list[str | list[str]]) -> list[str]:
        """A command's words.

        An inner list is left out when a reference in it is not set (null), and stands once for each item of a list
        that a word of it refers to: [--column, "${data.columns}"].
        """
        words: list[str] = []
        for item in run:
            group = [item] if isinstance(item, str) else item
            unset = [word for word in group if self._unset(word)]  # asks for each: all of them count as used
            if unset:
                if isinstance(item, list):
                    continue
                raise UserError(f"{unset[0]} is not set, and the command needs it")
            filled = [self.fill(word) for word in group]
            lists = [value for value in filled if isinstance(value, list)] if isinstance(item, list) else []
            for index in range(len(lists[0]) if lists else 1):
                words += [_word(value[index] if value in lists else value) for value in filled]
        return words


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def flatten(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} as {"a.b": 1}. Lists are values."""
    flat: dict[str, Any] = {}
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + str(key)] = value
    return flat
