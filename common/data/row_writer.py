"""What writes prepared rows, and counts them."""

from __future__ import annotations

import itertools
import json
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType

import numpy as np

from common.data.packing import PackedRows
from common.data.tokens import IGNORE, ragged
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
        self._file = open(folder / "rows.jsonl", "w", encoding="utf-8")  # noqa: SIM115 (closed in close)
        known = {rank: token for token, rank in tokenizer.vocabulary.ranks.items()}
        known |= {number: name.encode() for name, number in tokenizer.special.items()}
        tokens = [known.get(number, b"") for number in range(tokenizer.vocabulary_size)]
        self._bytes = np.frombuffer(b"".join(tokens), dtype=np.uint8)
        self._lengths = np.array([len(token) for token in tokens])
        self._starts = np.cumsum(self._lengths) - self._lengths

    def write(self, rows: PackedRows) -> None:
        lengths = self._lengths[rows.ids]
        text = self._bytes[ragged(self._starts[rows.ids], lengths)].tobytes()
        text_ends = np.concatenate(([0], np.cumsum(lengths)))
        trained = rows.labels != IGNORE
        begins = rows.positions == 0
        starts = begins | (np.diff(trained, prepend=trained[:1]) != 0)
        parts = np.flatnonzero(starts)
        ends = np.append(parts, len(rows.ids))[1:]
        part_of_row = np.searchsorted(parts, rows.offsets)
        made = [
            {"trained": is_trained, "tokens": tokens, "text": text[a:b].decode("utf-8", "replace")}
            | ({"begins_document": True} if first else {})
            for is_trained, tokens, first, a, b in zip(
                trained[parts].tolist(),
                (ends - parts).tolist(),
                begins[parts].tolist(),
                text_ends[parts].tolist(),
                text_ends[ends].tolist(),
                strict=True,
            )
        ]
        sizes = np.diff(rows.offsets).tolist()
        for size, (a, b) in zip(sizes, itertools.pairwise(part_of_row.tolist()), strict=True):
            self._file.write(json.dumps({"tokens": size, "parts": made[a:b]}, ensure_ascii=False) + "\n")
        self.count(rows)

    def close(self) -> None:
        self._file.close()

    def abandon(self) -> None:
        self._file.close()
