"""Answers by MindFormers' own generation, in batches."""

from __future__ import annotations

from typing import Any

from common.errors import UserError


def generate(
    network: Any,
    prompts: list[list[int]],
    *,
    pad_id: int,
    eos_ids: list[int],
    max_new_tokens: int,
    batch_size: int,
    **sampling: Any,
) -> list[list[int]]:
    """The new tokens for each prompt (token ids), without padding; the end token, where reached, is kept.

    Greedy unless `sampling` (do_sample, top_k, top_p, temperature, repetition_penalty) says otherwise. Every
    batch has `batch_size` prompts, the last one filled up, so that it is compiled once. Raises UserError for
    a prompt that leaves no room in the network's seq_length.
    """
    room = network.config.seq_length - max_new_tokens
    longest = max((len(prompt) for prompt in prompts), default=0)
    if longest > room:
        hint = "shorten it, or ask for fewer new tokens"
        raise UserError("a prompt is too long", found=f"{longest} tokens", expected=f"at most {room}", hint=hint)
    options = {"do_sample": False, **sampling}
    answers: list[list[int]] = []
    for start in range(0, len(prompts), batch_size):
        batch = prompts[start : start + batch_size]
        width = max(len(prompt) for prompt in batch)
        filled = batch + [batch[0]] * (batch_size - len(batch))
        # Padded on the right, where MindFormers finds the end of each prompt by itself
        rows = [prompt + [pad_id] * (width - len(prompt)) for prompt in filled]
        outputs = network.generate(
            rows, max_new_tokens=max_new_tokens, eos_token_id=eos_ids, pad_token_id=pad_id, **options
        )
        for prompt, output in zip(batch, outputs, strict=False):
            tokens = [int(token) for token in output][len(prompt) :]
            answers.append(cut(tokens[:max_new_tokens], eos_ids, pad_id))
    return answers


def cut(tokens: list[int], eos_ids: list[int], pad_id: int) -> list[int]:
    """`tokens` up to and with the first end token, or up to the padding."""
    for index, token in enumerate(tokens):
        if token in eos_ids:
            return tokens[: index + 1]
        if token == pad_id:
            return tokens[:index]
    return tokens
