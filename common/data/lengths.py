"""What happens to rows that are longer than a training row."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from common.data.tokens import TokenRows, ragged

POLICIES = ("drop", "cut", "turns", "split", "stop")


def fit(rows: TokenRows, limit: int, policy: str) -> tuple[TokenRows, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Rows of at most `limit` tokens; which of the given rows were dropped and which were cut (bool [rows] each).

    drop: long rows go. cut: their end goes. turns: the rounds that do not fit go, and the row with them
    where not even the first fits. split: they become several rows. stop: the same as drop, the caller raises.
    """
    lengths = np.diff(rows.offsets)
    long = lengths > limit
    none = np.zeros(len(rows), dtype=np.bool_)
    if not long.any():
        return rows, none, none
    if policy == "cut":
        return _shorten(rows, np.minimum(lengths, limit)), none, long
    if policy == "turns":
        assert rows.rounds is not None
        bounds = np.concatenate(([0], rows.rounds))
        last = bounds[np.searchsorted(bounds, rows.offsets[:-1] + limit, side="right") - 1]
        kept = np.where(long, np.maximum(last - rows.offsets[:-1], 0), lengths)
        dropped = kept == 0
        return _shorten(rows, kept).select(~dropped), dropped, long & ~dropped
    if policy == "split":
        return _split(rows, limit), none, long
    return rows.select(~long), long, none


def _shorten(rows: TokenRows, lengths: npt.NDArray[np.int64]) -> TokenRows:
    index = ragged(rows.offsets[:-1], lengths)
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    return TokenRows(rows.ids[index], rows.loss[index], offsets, rows.prompt, rows.source)


def _split(rows: TokenRows, limit: int) -> TokenRows:
    """Every row in pieces of `limit`; the last one of a row is what remains."""
    lengths = np.diff(rows.offsets)
    pieces = -(-lengths // limit)
    starts = ragged(np.zeros(len(rows), dtype=np.int64), pieces) * limit + np.repeat(rows.offsets[:-1], pieces)
    loss = rows.loss.copy()
    loss[starts] = False  # the first token of a row has nothing before it that could predict it
    offsets = np.append(starts, rows.offsets[-1])
    return TokenRows(rows.ids, loss, offsets, np.repeat(rows.prompt, pieces), np.repeat(rows.source, pieces))


def masked(rows: TokenRows) -> npt.NDArray[np.bool_]:
    """Which rows train nothing (bool [rows])."""
    made: npt.NDArray[np.bool_] = np.diff(rows.offsets) == 0
    some = ~made
    if some.any():
        made[some] = ~np.logical_or.reduceat(rows.loss, rows.offsets[:-1][some])
    return made
