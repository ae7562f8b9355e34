"""Speed, by hand, for the vendor's published run."""

from __future__ import annotations

import pytest
from speed import figures, parameters

LLAMA3_8B = {
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}


def row(seconds: float, tokens: int = 32 * 2048) -> dict[str, float]:
    return {"seconds": seconds, "tokens": tokens, "padded_tokens": 32 * 8192}


def published(rows: list[dict[str, float]]) -> dict[str, float]:
    return figures(rows, LLAMA3_8B, batch=32, ranks=16, ranks_per_card=2, length=8192, recompute=True)


def test_parameters_of_llama_3_8b() -> None:
    everything, multiplied = parameters(LLAMA3_8B)
    assert everything == 8_030_261_248
    assert everything - multiplied == 128256 * 4096


def test_every_step_but_the_first_two_counts() -> None:
    """The vendor's script averaged four of the six steps from 2 to 7."""
    found = published([row(500.0), row(400.0), *(row(seconds) for seconds in (10.0, 20.0, 30.0, 40.0, 50.0, 60.0))])
    assert found["steps"] == 6
    assert found["seconds_per_step"] == pytest.approx(35.0)


def test_padding_ranks_and_cards_are_told_apart() -> None:
    found = published([row(20.9)] * 5)
    assert found["train_samples_per_second"] == pytest.approx(1.531, abs=1e-3)  # as published
    assert found["full_rows_per_second"] == pytest.approx(1.531 / 4, abs=1e-3)  # three quarters are padding here
    assert found["padded_tokens_per_second_per_rank"] == pytest.approx(32 * 8192 / 20.9 / 16)
    assert found["padded_tokens_per_second_per_card"] == pytest.approx(32 * 8192 / 20.9 / 8)
    assert found["effective_tokens_per_second_per_card"] == pytest.approx(32 * 2048 / 20.9 / 8)


def test_flops() -> None:
    found = published([row(20.9)] * 5)
    tokens = 32 * 8192 / 20.9 / 16 / 1e12
    ours = (6 * (8_030_261_248 - 128256 * 4096) + 12 * 32 * 4096 * 8192) * tokens
    assert found["tflops_per_rank"] == pytest.approx(ours)
    assert found["tflops_per_rank_all_parameters"] == pytest.approx(2 * 8_030_261_248 * 4 * tokens)
    megatron = 96 * 32 * 4096**2 * (1 + 8192 / (6 * 4096) + 128256 / (16 * 32 * 4096)) * tokens
    assert found["tflops_per_rank_megatron"] == pytest.approx(megatron)
