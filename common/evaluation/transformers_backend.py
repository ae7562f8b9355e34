"""Generation with transformers. Imports torch where it is used: common works without it."""

from __future__ import annotations

from typing import Any

CALLER_VARIABLE = "LLAMA3_RECIPES_CALLER"  # the interpreter that was called, where it has torch and transformers


def generate(
    model: Any,
    prompts: list[list[int]],
    *,
    pad_id: int,
    eos_ids: list[int],
    max_new_tokens: int,
    batch_size: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
) -> list[list[int]]:
    """The new tokens for each prompt (token ids), without padding; the end token, where reached, is kept.

    Prompts are padded on the left, so that every answer begins at the last position. Greedy unless
    `temperature` is positive; sampling is then from the fewest tokens whose probabilities reach `top_p`.
    """
    import torch

    answers: list[list[int]] = []
    device = next(model.parameters()).device
    if device.type == "meta" or device.index is None:
        device = torch.device(device.type)
    sampling = (
        {"do_sample": True, "temperature": temperature, "top_p": top_p} if temperature > 0 else {"do_sample": False}
    )
    for start in range(0, len(prompts), batch_size):
        batch = prompts[start : start + batch_size]
        width = max(len(prompt) for prompt in batch)
        ids = torch.tensor([[pad_id] * (width - len(prompt)) + prompt for prompt in batch], device=device)
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in batch], device=device)
        with torch.no_grad():
            output = model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=max_new_tokens,
                pad_token_id=pad_id,
                eos_token_id=eos_ids,
                use_cache=True,
                **sampling,
            )
        answers += [cut(row[width:].tolist(), eos_ids) for row in output]
    return answers


def cut(tokens: list[int], eos_ids: list[int]) -> list[int]:
    """`tokens` up to and with the first end token."""
    for index, token in enumerate(tokens):
        if token in eos_ids:
            return tokens[: index + 1]
    return tokens
