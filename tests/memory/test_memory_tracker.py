"""The estimate against torch's own FSDP2 memory tracker, run here on fake tensors."""

from __future__ import annotations

from typing import Any

import pytest
from jobs import FSDP, SMALL, make, training

from common.memory.job import Job
from tools.planning import verify

CHUNKED = {**FSDP, "loss_chunk": 256}


def job(model: Any, framework: dict[str, Any], devices: int, length: int = 1024, **settings: Any) -> Any:
    return make(model, framework, training(length, **settings), devices=devices)


JOBS = {
    "full": job(SMALL, FSDP, 4),
    "full, loss in pieces, nothing computed again": job(
        SMALL, CHUNKED, 2, train={"gradient_checkpointing": False, "micro_batch_size": 2}
    ),
    "lora, nothing computed again": job(SMALL, FSDP, 2, lora=8, train={"gradient_checkpointing": False}),
    "q-lora with dropout": job(SMALL, CHUNKED, 4, 2048, lora=16, quantized=True, dropout=0.05),
    "8B full on 8 devices": job("8B", CHUNKED, 8, 2048),
}


@pytest.mark.parametrize("name", JOBS)
def test_the_estimate_is_within_a_tenth_of_the_tracker(name: str, torch_python: str) -> None:
    wanted: Job = JOBS[name]
    tracked = verify.track(verify.spec(wanted), torch_python)["total"]
    assert verify.comparable(wanted) == pytest.approx(tracked, rel=0.1)
