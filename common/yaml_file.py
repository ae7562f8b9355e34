"""YAML files read with the line of every key, so that an error can name it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from common.errors import UserError

Location = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """SafeLoader in which 1e-4 is a number: YAML 1.1 asks for a dot, and nobody types one.

    2024-01-01 stays a text: JSON and the frameworks' configurations know no dates.
    """

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


@dataclass(frozen=True)
class Document:
    """The content of a YAML file and where each key stands: lines[("train", "seed")] == 12."""

    file: Path
    value: Any
    lines: dict[Location, int]

    def line(self, location: Location) -> int | None:
        """The line of `location`, or of the nearest key above it."""
        for end in range(len(location), 0, -1):
            if location[:end] in self.lines:
                return self.lines[location[:end]]
        return None


def parse_scalar(text: str) -> Any:
    """The value that `text` has in YAML: 1e-4 a float, 3 an int, true a bool, null None, [a, b] a list."""
    return yaml.load(text, _Loader)


def load(file: Path) -> Document:
    """Read `file`. Raises UserError for text that is not YAML, for a key given twice and for no mapping."""
    try:
        text = file.read_text(encoding="utf-8")
        node = yaml.compose(text, _Loader)
        if not isinstance(node, yaml.MappingNode):
            raise UserError("holds no mapping of keys to values", file=file)
        lines: dict[Location, int] = {}
        return Document(file, _build(node, (), lines, file, _Loader(text)), lines)
    except UnicodeDecodeError as error:
        raise UserError(
            "is not UTF-8", file=file, found=f"byte {error.object[error.start]:#04x} at {error.start}"
        ) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = mark.line + 1 if mark else None
        raise UserError(f"is not YAML: {error.problem}", file=file, line=line) from None
    except yaml.reader.ReaderError as error:
        raise UserError(f"is not YAML: {error.reason}", file=file, found=f"{error.character:#04x}") from None


def _build(node: yaml.Node, at: Location, lines: dict[Location, int], file: Path, loader: _Loader) -> Any:
    if isinstance(node, yaml.MappingNode):
        mapping: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise UserError("a key is one word", file=file, line=line)
            key = loader.construct_object(key_node)
            if key in mapping:
                raise UserError(
                    f"the key {key!r} stands twice",
                    file=file,
                    line=line,
                    hint=f"the first is on line {lines[(*at, key)]}",
                )
            lines[(*at, key)] = line
            mapping[key] = _build(value_node, (*at, key), lines, file, loader)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        items = []
        for index, item in enumerate(node.value):
            lines[(*at, index)] = item.start_mark.line + 1
            items.append(_build(item, (*at, index), lines, file, loader))
        return items
    return loader.construct_object(node)
