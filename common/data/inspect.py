"""`inspect`: what prepared data look like, token by token, and how long their rows are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.text import Text

from common.data import sources, stored
from common.data.tokens import IGNORE
from common.errors import UserError
from common.tokenizer import Tokenizer, load

_TRAINED = ("bold green", "bold cyan")  # neighbours alternate, so that the tokens' borders show
_MASKED = ("bright_black", "white")
_BAR = 40


def show(location: str, console: Console, *, tokenizer: str | None, samples: int, bins: int) -> None:
    """Print samples, statistics and a histogram of prepared data, or what a raw input is.

    Raises UserError where the tokenizer is not the one the data were prepared with.
    """
    path = Path(location)
    if not (path / "state.json").is_file() and not (path / "dataset_dict.json").is_file():
        if any((path / name).is_file() for name in ("rows.jsonl", "train/rows.jsonl")):
            hint = "read rows.jsonl as it is, or prepare the data with --format arrow"
            raise UserError("these were prepared for people, as text", file=path, hint=hint)
        _show_raw(location, console)
        return
    for part in ("train", "eval") if (path / "dataset_dict.json").is_file() else ("",):
        folder = path / part
        if part:
            console.rule(part)
        meta = stored.read_meta(folder)
        if tokenizer is not None:
            loaded = load(tokenizer)
            if loaded.digest != meta["tokenizer"]:
                raise UserError(
                    "the data were prepared with another tokenizer",
                    file=folder,
                    found=f"{loaded.digest} of {tokenizer}",
                    expected=meta["tokenizer"],
                )
            for number, line in enumerate(_samples(folder, loaded, samples, mark=not console.color_system), 1):
                console.rule(f"row {number}", style="bright_black")
                console.print(line, soft_wrap=True)
        _statistics(folder, console, bins)
        counts = meta[part or "train"]
        console.print(f"template {meta['template']}, loss on {meta['loss_on']}, packing {meta['packing']}")
        for reason, count in counts["dropped"].items():
            console.print(f"dropped: {count:,} {reason}")
        console.print(f"cut: {counts['cut']:,}")


def _show_raw(location: str, console: Console) -> None:
    probe = sources.probe(sources.local(location))
    console.print(f"layout:      {probe.layout}")
    console.print(f"fields:      {', '.join(probe.fields) or '(plain text)'}")
    console.print(f"form:        {probe.form}{', ' + probe.compression if probe.compression else ''}")
    console.print(f"files:       {len(probe.files)}, the first {probe.files[0]}")


def _samples(folder: Path, tokenizer: Tokenizer, count: int, *, mark: bool) -> Iterator[Text]:
    shown = 0
    for batch in stored.batches(folder):
        ids, offsets = stored.column(batch, "input_ids")
        labels, _ = stored.column(batch, "labels")
        positions, _ = stored.column(batch, "position_ids")
        for row in range(len(batch)):
            if shown == count:
                return
            shown += 1
            part = slice(offsets[row], offsets[row + 1])
            yield token_text(tokenizer, ids[part], labels[part] != IGNORE, positions[part], mark=mark)


def token_text(
    tokenizer: Tokenizer,
    ids: npt.NDArray[np.int32],
    trained: npt.NDArray[np.bool_],
    positions: npt.NDArray[np.int32],
    *,
    mark: bool,
) -> Text:
    """One row in colours: trained tokens green, the others grey; with `mark`, trained runs stand in «» too."""
    text = Text()
    for place, token in enumerate(ids.tolist()):
        if place and positions[place] == 0:
            text.append("\n--- next document ---\n", style="yellow")
        if mark and trained[place] and (place == 0 or not trained[place - 1]):
            text.append("«")
        styles = _TRAINED if trained[place] else _MASKED
        text.append(tokenizer.token_bytes(token).decode("utf-8", "replace"), style=styles[place % 2])
        if mark and trained[place] and (place + 1 == len(ids) or not trained[place + 1]):
            text.append("»")
    return text


def _statistics(folder: Path, console: Console, bins: int) -> None:
    parts = [np.diff(stored.column(batch, "input_ids")[1]) for batch in stored.batches(folder)]
    lengths = np.concatenate(parts)
    trained = sum(int(np.count_nonzero(stored.column(b, "labels")[0] != IGNORE)) for b in stored.batches(folder))
    total = int(lengths.sum())
    console.print(f"rows {len(lengths):,}, tokens {total:,}, trained {trained:,} ({trained / total:.1%})")
    low, middle, high = (int(x) for x in np.percentile(lengths, (5, 50, 95)))
    console.print(
        f"tokens a row: mean {lengths.mean():.1f}, least {lengths.min()}, 5 % {low}, median {middle}, "
        f"95 % {high}, most {lengths.max()}"
    )
    counts, edges = np.histogram(lengths, bins=min(bins, int(lengths.max() - lengths.min()) + 1))
    for count, start, end in zip(counts, edges[:-1], edges[1:], strict=True):
        bar = "#" * round(_BAR * count / counts.max())
        console.print(f"{start:8.0f} to {end:8.0f} {count:10,} {bar}", highlight=False)
