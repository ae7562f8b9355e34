"""Loss and perplexity of a model on a set of texts: read or prepared here, measured by the worker."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from common.data import stored
from common.data.options import Options
from common.data.prepare import prepare
from common.errors import UserError
from common.evaluation import worker
from common.evaluation.perplexity import LossSum
from common.evaluation.subject import Subject
from common.tokenizer import Tokenizer
from common.tokenizer.vocabulary import BEGIN_OF_TEXT, RIGHT_PAD

Document = list[list[int]]
"""[ids, labels], labels not shifted."""


def documents(subject: Subject, tokens: Tokenizer, data: str, template: str | None, max_length: int) -> list[Document]:
    """The documents in `data`: prepared data, whose held-out part is taken where there is one, or any raw input.

    A raw input is prepared as the model's training data were; documents longer than `max_length` are split,
    conversations cut. Raises UserError for data of another tokenizer.
    """
    folder = Path(data)
    if (folder / "meta.json").is_file() or (folder / "state.json").is_file():
        made_with = stored.read_meta(folder).get("tokenizer")
        if made_with != tokens.digest:
            raise UserError(
                "was not made with the model's tokenizer", file=folder, found=made_with, expected=tokens.digest
            )
        held_out = next((folder / part for part in ("eval", "train") if (folder / part).is_dir()), folder)
        return _read(held_out)
    with tempfile.TemporaryDirectory(prefix="held-out-") as work:
        output = Path(work) / "data"
        prepare(
            Options(
                input=data,
                output=output,
                tokenizer=str(subject.model),
                template=template or subject.template or "plain",
                system=subject.system,
                loss_on=str(subject.meta.get("loss_on", "answers")),
                max_length=min(max_length, subject.context),
                on_long="cut",
                odd_turns="drop",
            )
        )
        return _read(output)


def _read(folder: Path) -> list[Document]:
    """The documents of prepared rows; packed ones apart, each with nothing before it."""
    made: list[Document] = []
    for batch in stored.batches(folder):
        (ids, offsets), (labels, _), (positions, _) = (
            stored.column(batch, name) for name in ("input_ids", "labels", "position_ids")
        )
        starts = np.union1d(np.flatnonzero(positions == 0), offsets[:-1])
        for start, end in zip(starts, [*starts[1:], len(ids)], strict=True):
            made.append([ids[start:end].tolist(), labels[start:end].tolist()])
    return made


def measure(
    subject: Subject,
    tokens: Tokenizer,
    found: list[Document],
    *,
    batch_size: int,
    python: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> LossSum:
    """The loss over `found`. Raises UserError where no interpreter has torch, RunError where measuring fails."""
    request = {
        "task": "loss",
        **worker.loading(subject),
        "documents": found,
        "pad_id": tokens.special.get(RIGHT_PAD, tokens.special_id(BEGIN_OF_TEXT)),
        "batch_size": batch_size,
    }
    total, count = 0.0, 0
    for number, (nats, trained) in enumerate(worker.work(worker.interpreter(subject, python), request, subject), 1):
        total, count = total + float(nats), count + int(trained)
        if progress is not None:
            progress(min(number * batch_size, len(found)))
    return LossSum(total, count)
