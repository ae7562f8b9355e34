"""Which tokens a model has never been trained on: base weights know no chat tokens."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from common.errors import UserError
from common.weights import dtypes, layouts
from common.weights.source import Source, open_source

# Meta's base weights hold about 1e-23 where a token was never trained; a trained row's largest
# value is about 1e-2.
UNTRAINED_BELOW = 1e-16


def rows_untrained(model: Path | Source, ids: Iterable[int]) -> list[int]:
    """Those of `ids` whose rows in the embedding or in lm_head are (almost) zero, in the order given.

    Reads only these rows. Raises UserError for an id beyond the embedding and for broken weights.
    """
    source = open_source(model) if isinstance(model, Path) else model
    tables = [source.tensors[name] for name in (layouts.EMBEDDING, layouts.HEAD) if name in source.tensors]
    untrained = []
    for number in ids:
        if not 0 <= number < source.config.vocab_size:
            expected = f"below {source.config.vocab_size}"
            raise UserError("the embedding has no row for this id", file=source.folder, found=number, expected=expected)
        rows = (dtypes.cast(table.read(number, number + 1), table.dtype, dtypes.FP32) for table in tables)
        if any(np.abs(row).max() < UNTRAINED_BELOW for row in rows):
            untrained.append(number)
    return untrained
