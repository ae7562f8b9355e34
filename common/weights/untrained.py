"""Which tokens a model has never been trained on: base weights know no chat tokens."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from common.errors import UserError
from common.weights import dtypes, hugging_face

# Meta's base weights hold about 1e-23 where a token was never trained; a trained row's largest
# value is about 1e-2.
UNTRAINED_BELOW = 1e-16


def rows_untrained(folder: Path, ids: Iterable[int]) -> list[int]:
    """Those of `ids` whose rows in the embedding or in lm_head are (almost) zero, in the order given.

    Reads only these rows. Raises UserError for an id beyond the embedding and for broken weights.
    """
    located = hugging_face.locate(folder)
    tables = [located[name].open() for name in ("model.embed_tokens.weight", "lm_head.weight") if name in located]
    if not tables:
        raise UserError("tensor 'model.embed_tokens.weight' is missing", file=folder)
    untrained = []
    for number in ids:
        size = min(table.shape[0] for table in tables)
        if not 0 <= number < size:
            raise UserError("the embedding has no row for this id", file=folder, found=number, expected=f"below {size}")
        rows = (dtypes.cast(table.read(number, number + 1), table.dtype, dtypes.FP32) for table in tables)
        if any(np.abs(row).max() < UNTRAINED_BELOW for row in rows):
            untrained.append(number)
    return untrained
