"""The token batches, made from a seed with numpy alone; make.py writes them to the files that are read."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from common.golden import LENGTH, ROWS, STEPS

SEED = 20
LABELS_PER_ROW = 40
"""The same in every row, so that means over rows, ranks and tokens agree."""
WORDS = 1000
"""Ids below this are ordinary tokens of the tiny vocabulary."""
IGNORE = -100


def make(bos: int, eos: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Ids and labels, both (STEPS, ROWS, LENGTH): bos, then two turns of a prompt and a trained answer with eos.

    An answer counts on from the last token of its prompt, mostly: something that a model can learn.
    """
    random = np.random.RandomState(SEED)
    shape = (STEPS, ROWS, LENGTH)
    ids, labels = np.empty(shape, np.int32), np.full(shape, IGNORE, np.int32)
    prompts = LENGTH - 1 - LABELS_PER_ROW
    for step, row in np.ndindex(STEPS, ROWS):
        first_prompt, first_answer = random.randint(5, 16), random.randint(10, 26)
        turns = [(first_prompt, first_answer), (prompts - first_prompt, LABELS_PER_ROW - first_answer)]
        tokens, trained = [bos], [False]
        for prompt, answer in turns:
            tokens += random.randint(3, WORDS, prompt).tolist()
            for _ in range(answer - 1):
                tokens.append(random.randint(3, 40) if random.rand() < 0.2 else (tokens[-1] * 5 + 3) % 37 + 3)
            tokens.append(eos)
            trained += [False] * prompt + [True] * answer
        ids[step, row] = tokens
        labels[step, row, trained] = ids[step, row, trained]
    return ids, labels
