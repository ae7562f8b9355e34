"""Answers of a small model in batches and one at a time, in turn, as one line of JSON: MODEL_FOLDER.

For a Python with torch and transformers; tools.bench.evaluation starts it.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import time

from common.evaluation.transformers_backend import generate
from common.evaluation.transformers_worker import load

PROMPTS, BATCH_SIZE, NEW_TOKENS, PAIRS = 16, 16, 16, 3
PAD_ID = 0


def main(folder: str) -> None:
    request = {"model": folder, "adapter": None, "quantization": None, "dtype": "float32"}
    model = load({**request, "plugin": None, "device_map": "cpu"})
    numbers = random.Random(3)
    prompts = [[numbers.randrange(1, 1000) for _ in range(numbers.randint(20, 80))] for _ in range(PROMPTS)]

    def seconds(batch_size: int) -> float:
        started = time.perf_counter()
        made = generate(model, prompts, pad_id=PAD_ID, eos_ids=[], max_new_tokens=NEW_TOKENS, batch_size=batch_size)
        assert all(len(answer) == NEW_TOKENS for answer in made)
        return time.perf_counter() - started

    seconds(BATCH_SIZE)  # everything warms up
    pairs = [(seconds(1), seconds(BATCH_SIZE)) for _ in range(PAIRS)]
    ratios = [alone / together for alone, together in pairs]
    figures = {"prompts": PROMPTS, "batch_size": BATCH_SIZE, "ratio": statistics.median(ratios), "seconds": pairs}
    print(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1])
