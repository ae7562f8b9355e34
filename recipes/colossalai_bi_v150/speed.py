"""Speed, in our terms and in the vendor's, from a run's metrics.

The vendor publishes `train_samples_per_second`: rows a second on all ranks, padding included, without the first two
steps. The rest of the file says what that figure leaves open: how much of a row was padding, per rank or per card.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from common import metrics
from common.errors import RunError
from common.files import write_json

IGNORED_STEPS = 2  # as the vendor's script does


def parameters(model: dict[str, Any]) -> tuple[int, int]:
    """All parameters of a Llama `model` (its config.json), and those that every token is multiplied with."""
    width, layers, inner = model["hidden_size"], model["num_hidden_layers"], model["intermediate_size"]
    keys = width // model["num_attention_heads"] * model["num_key_value_heads"]
    layer = 2 * width * width + 2 * width * keys + 3 * width * inner + 2 * width
    embeddings = model["vocab_size"] * width
    multiplied = layers * layer + width + embeddings
    return multiplied + (0 if model.get("tie_word_embeddings") else embeddings), multiplied


def figures(
    rows: list[dict[str, float]],
    model: dict[str, Any],
    *,
    batch: int,
    ranks: int,
    ranks_per_card: int,
    length: int,
    recompute: bool,
) -> dict[str, float]:
    """Speed over the steps in `rows`; `batch` rows a step, cut at `length` tokens. TFLOP/s are 10^12 a second.

    Formulas: ours is 6N + 12·L·H·S a token, N without the embeddings that are looked up (PaLM, arXiv 2204.02311,
    appendix B); recomputing does not count. The vendor's two count it, as one more forward pass: Megatron's
    (arXiv 2104.04473, equation 3), and 2 x all parameters x tokens.
    """
    measured = rows[IGNORED_STEPS:] or rows
    if not measured:
        raise RunError("there are no steps to measure")
    seconds = sum(row["seconds"] for row in measured) / len(measured)
    padded = sum(row["padded_tokens"] for row in measured) / len(measured)
    effective = sum(row["tokens"] for row in measured) / len(measured)
    count, multiplied = parameters(model)
    hidden, layers, vocabulary = model["hidden_size"], model["num_hidden_layers"], model["vocab_size"]
    width = padded / batch
    passes = 4 if recompute else 3
    ours = (6 * multiplied + 12 * layers * hidden * width) * padded
    megatron = 24 * passes * padded * layers * hidden**2
    megatron *= 1 + width / (6 * hidden) + vocabulary / (16 * layers * hidden)
    cards = ranks / ranks_per_card
    scale = seconds * ranks * 1e12
    return {
        "steps": len(measured),
        "seconds_per_step": seconds,
        "train_samples_per_second": batch / seconds,
        "full_rows_per_second": effective / length / seconds,
        "padded_tokens_per_second_per_rank": padded / seconds / ranks,
        "padded_tokens_per_second_per_card": padded / seconds / cards,
        "effective_tokens_per_second_per_rank": effective / seconds / ranks,
        "effective_tokens_per_second_per_card": effective / seconds / cards,
        "tflops_per_rank": ours / scale,
        "tflops_per_rank_megatron": megatron / scale,
        "tflops_per_rank_all_parameters": 2 * passes * count * padded / scale,
    }


TABLE = (
    ("rows a second on all ranks, with padding (the vendor's train_samples_per_second)", "train_samples_per_second"),
    ("full rows a second on all ranks, without padding", "full_rows_per_second"),
    ("tokens a second per rank, with padding", "padded_tokens_per_second_per_rank"),
    ("tokens a second per card, with padding", "padded_tokens_per_second_per_card"),
    ("tokens a second per rank, without padding", "effective_tokens_per_second_per_rank"),
    ("tokens a second per card, without padding", "effective_tokens_per_second_per_card"),
    ("TFLOP/s per rank, by this project's formula", "tflops_per_rank"),
    ("TFLOP/s per rank, by Megatron's formula, with recomputing", "tflops_per_rank_megatron"),
    ("TFLOP/s per rank, by 2 x parameters x tokens x passes", "tflops_per_rank_all_parameters"),
)


def write_speed(config: dict[str, Any], ranks: int, rows: int) -> None:
    """Write the figures of a run over `rows` rows on `ranks` devices: as JSON, and as a section of the report."""
    train = config["train"]
    model = json.loads((Path(config["model"]["path"]) / "config.json").read_text(encoding="utf-8"))
    sizes = config["plugins"]["3d"]
    data_parallel = ranks // (sizes["tp_size"] * sizes["pp_size"] * sizes["sp_size"])
    per_card = config["platform"]["devices_per_card"]
    found = figures(
        metrics.read(Path(config["metrics"])),
        model,
        batch=train["micro_batch_size"] * train["gradient_accumulation_steps"] * data_parallel,
        ranks=ranks,
        ranks_per_card=per_card,
        length=config["data"]["max_length"],
        recompute=config["model"]["gradient_checkpointing"],
    )
    write_json(Path(config["speed"]["figures"]), {"rows": rows, **found})
    capped = "" if config["data"]["max_rows"] is None else ", which config.data.max_rows caps"
    section = {
        "title": "Speed in the vendor's terms",
        "text": [
            f"Mean of {found['steps']} steps on {ranks} ranks, {per_card} to a card, without the first "
            f"{IGNORED_STEPS}. A full row is {config['data']['max_length']} tokens.",
            f"The training draws from {rows:,} rows{capped}.",
        ],
        "head": ["What", "Value"],
        "rows": [[name, f"{found[key]:.4g}"] for name, key in TABLE],
    }
    write_json(Path(config["speed"]["section"]), section)
