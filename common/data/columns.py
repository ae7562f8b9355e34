"""Columns of Arrow tables as the layouts read them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from common.data.records import integers


def string(table: pa.RecordBatch, name: str) -> pa.StringArray | None:
    """A column without nulls as plain strings, else None."""
    at = table.schema.get_field_index(name)
    if at < 0:
        return None
    return plain_strings(table.column(at))


def plain_strings(array: pa.Array) -> pa.StringArray | None:
    """The array as pa.string() when it is text without nulls, else None."""
    if array.null_count:
        return None
    if pa.types.is_string(array.type):
        return array
    if pa.types.is_large_string(array.type) or pa.types.is_string_view(array.type):
        return array.cast(pa.string())
    if pa.types.is_dictionary(array.type) and pa.types.is_string(array.type.value_type):
        return array.dictionary_decode()
    return None


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type holds text."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def list_of_structs(table: pa.RecordBatch, name: str) -> tuple[Any, pa.StructArray] | None:
    """The offsets from 0 (int64) and the values of a column of lists of structs, or None where there is a null."""
    at = table.schema.get_field_index(name)
    if at < 0:
        return None
    column = table.column(at)
    kind = column.type
    if column.null_count or not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return None
    if not pa.types.is_struct(kind.value_type):
        return None
    offsets = integers(column.offsets)
    values = column.values.slice(offsets[0], offsets[-1] - offsets[0])
    return (offsets - offsets[0], values) if values.null_count == 0 else None


def child(values: pa.StructArray, name: str) -> pa.StringArray | None:
    """A field of structs as plain strings; None where there is none, or it is no text."""
    at = values.type.get_field_index(name)
    return None if at < 0 else plain_strings(values.field(at))
