"""What writes prepared rows, and counts them."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from common.data.packing import PackedRows
from common.data.tokens import IGNORE
from common.tokenizer import Tokenizer


class RowWriter(ABC):
    """Writes rows into `folder`; a context manager that finishes the files when its block ends well."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.rows = 0
        self._totals = {"rows": 0, "documents": 0, "tokens": 0, "trained_tokens": 0, "longest_row": 0}

    @abstractmethod
    def write(self, rows: PackedRows) -> None:
        """Append `rows`."""

    @abstractmethod
    def close(self) -> None:
        """Finish the files."""

    @abstractmethod
    def abandon(self) -> None:
        """Let go of the files as they are."""

    def count(self, rows: PackedRows) -> None:
        """Add `rows` to the totals."""
        self.rows += len(rows)
        totals = self._totals
        totals["rows"] += len(rows)
        totals["documents"] += rows.documents
        totals["tokens"] += len(rows.ids)
        totals["trained_tokens"] += int(np.count_nonzero(rows.labels != IGNORE))
        totals["longest_row"] = max(totals["longest_row"], int(np.diff(rows.offsets).max(initial=0)))

    def summary(self) -> dict[str, int]:
        """How much was written."""
        return dict(self._totals)

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()


class JsonlWriter(RowWriter):
    """Rows for people: JSON lines with the documents of each row, as text in trained and untrained parts."""

    def __init__(self, folder: Path, tokenizer: Tokenizer) -> None:
        super().__init__(folder)
        self._tokenizer = tokenizer
        self._file = open(folder / "rows.jsonl", "w", encoding="utf-8")  # noqa: SIM115 (closed in close)

    def write(self, rows: PackedRows) -> None:
        for start, stop in zip(rows.offsets[:-1].tolist(), rows.offsets[1:].tolist(), strict=True):
            labels = rows.labels[start:stop]
            changes = np.flatnonzero(np.diff(labels != IGNORE) | (rows.positions[start + 1 : stop] == 0)) + 1
            parts: list[dict[str, Any]] = []
            for a, b in zip([0, *changes.tolist()], [*changes.tolist(), stop - start], strict=True):
                text = self._tokenizer.decode(rows.ids[start + a : start + b])
                part = {"trained": bool(labels[a] != IGNORE), "tokens": b - a, "text": text}
                if rows.positions[start + a] == 0:
                    part["begins_document"] = True
                parts.append(part)
            self._file.write(json.dumps({"tokens": stop - start, "parts": parts}, ensure_ascii=False) + "\n")
        self.count(rows)

    def close(self) -> None:
        self._file.close()

    def abandon(self) -> None:
        self._file.close()
