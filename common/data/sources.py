"""What an input is: its files, how they are packed, which layout their records have."""

from __future__ import annotations

import dataclasses
import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.data import blocks, files
from common.data.block import TOO_LONG, Block
from common.data.files import InputFile
from common.data.layouts import LAYOUTS, Layout, Messages, RecordError
from common.data.parse import values
from common.errors import UserError, did_you_mean

_HUB_ID = re.compile(r"(?:[a-z]+:)?[\w.-]+/[\w.-]+")
_PROBE_BYTES = 2**16


@dataclass(frozen=True)
class Probe:
    """What the beginning of an input shows. `form` and `compression` are the first file's."""

    layout: str
    fields: tuple[str, ...]
    files: tuple[Path, ...]
    form: str
    compression: str
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def make_layout(self) -> Layout:
        """The layout, with the names that the file gives its columns."""
        return LAYOUTS[self.layout](self.names)


def probe(path: str | Path, source: str = "auto", columns: Mapping[str, str] | None = None) -> Probe:
    """Recognise the files and the layout of an input, reading only its beginning.

    `source` names a layout instead of recognising it; `columns` says what the file calls a column of
    the layout, as {"instruction": "question"}. Raises UserError for what cannot be read or is of no
    known layout.
    """
    if source != "auto" and source not in LAYOUTS:
        known = ", ".join(["auto", *LAYOUTS])
        raise UserError("no such source", found=source, expected=known, hint=did_you_mean(source, LAYOUTS))
    paths = files.find(path)
    first = files.recognise(paths[0])
    record = _first_record(first)
    names = dict(columns or {})
    if record is None:
        layout = source if source != "auto" else "text"
        fields: tuple[str, ...] = ()
    else:
        fields = tuple(str(name) for name in record)
        layout = source if source != "auto" else _recognise(record, names, first)
        if issubclass(LAYOUTS[layout], Messages):
            names = _message_names(LAYOUTS[layout], record, names)
        _check_fields(layout, names, record, first)
    return Probe(layout, fields, tuple(paths), first.form, first.compression, names)


def column_names(pairs: Sequence[str] | None) -> dict[str, str]:
    """{"instruction": "question"} from ["instruction=question"]; raises UserError for another form."""
    made = {}
    for pair in pairs or []:
        name, equals, own = pair.partition("=")
        if not (name and equals and own):
            raise UserError("a column has another form", found=pair, expected="LAYOUT_COLUMN=COLUMN_OF_THE_FILE")
        made[name] = own
    return made


def local(location: str) -> Path | str:
    """`location` itself where it is a file, a glob or a directory, else the folder that a hub id is fetched into.

    A split may follow, as in HuggingFaceH4/no_robots@train; it follows the folder, too.
    """
    name, at, split = location.partition("@")
    if Path(location).exists() or any(c in location for c in "*?[") or not _HUB_ID.fullmatch(name):
        return location
    if Path(name).exists() or name.startswith(".") or Path(name).parent.is_dir():
        return location
    hub = importlib.import_module("common.weights.hub")
    fetched: Path = hub.fetch(name, kind="dataset")
    return f"{fetched}{at}{split}"


def _first_record(file: InputFile) -> dict[str, Any] | None:
    """The first record that can be read, as it stands in the file; None for plain text.

    Malformed ones before it are for the reading to judge. Raises UserError where the first block holds nothing else.
    """
    too_long = None
    for block in blocks.read(file, _PROBE_BYTES):
        if block.kind == "text":
            return None
        if block.table is not None:
            if len(block.table):
                columns = zip(block.table.schema.names, block.table.columns, strict=True)
                return {name: column[0].as_py() for name, column in columns}
            continue
        read = list(values(block, LAYOUTS["text"]()))
        record = next((value for value in read if isinstance(value, dict)), None)
        if record is not None:
            return record
        if block.kind != TOO_LONG:
            raise _no_object(read[0], block)
        too_long = too_long or _no_object(read[0], block)
    found = "an empty list" if file.form == "json" else None
    raise too_long or UserError("the file holds no record", file=file.path, found=found)


def _no_object(value: Any, block: Block) -> UserError:
    """What is wrong with a first record that is no object."""
    expected = "a JSON array of objects, or one object a line"
    if not isinstance(value, RecordError):
        value = RecordError("a record is not an object", f"{type(value).__name__} {str(value)[:60]}", expected)
    elif value.problem.startswith("not JSON"):
        value.expected = expected
    return UserError(value.problem, file=block.file, line=block.first_line, found=value.found, expected=value.expected)


def _recognise(record: Mapping[str, Any], names: Mapping[str, str], file: InputFile) -> str:
    named = [
        layout
        for layout, kind in LAYOUTS.items()
        if names
        and set(names) & {*kind.required, "input"} - {"text"}
        and all(names.get(column, column) in record for column in kind.required)
    ]
    if named:
        return named[0]
    for layout in ("messages", "sharegpt", "firefly", "squad"):
        if isinstance(record.get(LAYOUTS[layout].required[0]), list):
            return layout
    for layout in ("alpaca", "contest", "text"):
        if all(column in record for column in LAYOUTS[layout].required):
            return layout
    found = "fields " + ", ".join(map(str, record))
    expected = "the fields of one of " + "; ".join(
        f"{name} ({', '.join(kind.required)})"
        for name, kind in LAYOUTS.items()
        if name not in ("belle", "lines", "wikitext")
    )
    hint = "name the columns: --column instruction=NAME --column output=NAME"
    raise UserError("the layout is not known", file=file.path, found=found, expected=expected, hint=hint)


def _message_names(kind: type[Layout], record: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, str]:
    """Which of the usual names a list of messages uses for role and content."""
    assert issubclass(kind, Messages)
    made = dict(names)
    entries = record.get(names.get(kind.required[0], kind.required[0]))
    message = entries[0] if isinstance(entries, list) and entries and isinstance(entries[0], dict) else {}
    for choices in (kind.role_names, kind.content_names):
        used = next((name for name in choices if name in message), choices[0])
        made.setdefault(choices[0], used)
    return made


def _check_fields(layout: str, names: Mapping[str, str], record: Mapping[str, Any], file: InputFile) -> None:
    required = [names.get(column, column) for column in LAYOUTS[layout].required]
    missing = [column for column in required if column not in record]
    if missing:
        raise UserError(
            f"the first record is not of the layout {layout}",
            file=file.path,
            found="fields " + ", ".join(map(str, record)),
            expected="fields " + ", ".join(required),
            hint=did_you_mean(missing[0], map(str, record))
            or f"say what the file calls it: --column {missing[0]}=NAME, in a recipe data.columns=[{missing[0]}=NAME]",
        )
