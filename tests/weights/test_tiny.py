"""The tiny model: the same everywhere, whole, and with the gaps that Meta's base weights have."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from common import tokenizer
from common.errors import UserError
from common.weights import tiny
from common.weights.inspect import inspect
from common.weights.untrained import rows_untrained

Models = Callable[..., Path]
CHAT_TOKENS = ("<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|reserved_special_token_5|>")


def chat_ids() -> list[int]:
    return [tokenizer.load(tokenizer.TINY).special_id(name) for name in CHAT_TOKENS]


def test_the_seed_gives_the_same_values_for_good(tmp_path: Path) -> None:
    # Golden curves hang on these bits. sha256 of q_proj of layer 0 in fp32, seed 0.
    tiny.make(tmp_path / "m", dtype="fp32")
    name = "model.layers.0.self_attn.q_proj.weight"
    index = json.loads((tmp_path / "m" / "model.safetensors.index.json").read_text())
    with safe_open(tmp_path / "m" / index["weight_map"][name], "np") as file:
        values = file.get_tensor(name)
    assert values.shape == (128, 128)
    assert (
        hashlib.sha256(values.tobytes()).hexdigest()
        == "6b56d85a4f7eeb3463ee754a4d424dacb5c9ad6ba6f9f68fad534b0522f4af34"
    )


def test_another_seed_gives_other_values(tmp_path: Path) -> None:
    one, other = (tmp_path / str(seed) for seed in (0, 1))
    tiny.make(one, seed=0)
    tiny.make(other, seed=1)
    files = [sorted(folder.glob("*.safetensors"))[0].read_bytes() for folder in (one, other)]
    assert files[0] != files[1]


def test_the_safetensors_library_reads_every_shard(models: Models) -> None:
    folder = models(dtype="fp32")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    seen: dict[str, tuple[int, ...]] = {}
    shards = sorted(folder.glob("*.safetensors"))
    assert len(shards) > 1
    for shard in shards:
        with safe_open(shard, "np") as file:
            for name in file.keys():  # noqa: SIM118 - not a dict
                assert index["weight_map"][name] == shard.name
                seen[name] = file.get_tensor(name).shape
    assert seen["model.layers.1.self_attn.k_proj.weight"] == (64, 128)
    assert set(seen) == set(index["weight_map"])


def test_base_weights_know_no_chat_tokens(models: Models) -> None:
    vocabulary = tokenizer.load(tokenizer.TINY)
    ids = [*chat_ids(), 65, vocabulary.special_id("<|end_of_text|>"), vocabulary.special_id("<|begin_of_text|>")]
    assert rows_untrained(models("base"), ids) == chat_ids()
    assert rows_untrained(models("instruct"), ids) == []


def test_an_id_beyond_the_embedding_is_an_error(models: Models) -> None:
    with pytest.raises(UserError, match="no row"):
        rows_untrained(models(), [1280])


def test_special_ids_agree_with_the_tokenizer(models: Models) -> None:
    for kind, end in (("base", "<|end_of_text|>"), ("instruct", "<|eot_id|>")):
        folder = models(kind)
        config = json.loads((folder / "config.json").read_text())
        files = json.loads((folder / "tokenizer_config.json").read_text())
        special = tokenizer.load(folder).special
        assert config["eos_token_id"] == special[end] == special[files["eos_token"]]
        assert config["pad_token_id"] == special[files["pad_token"]] != config["eos_token_id"]
        assert ("chat_template" in files) == (kind == "instruct")


def test_inspect_reads_headers_only(models: Models, tmp_path: Path) -> None:
    summary = inspect(models())
    assert (summary.format, summary.dtype, summary.shards) == ("hf", "bf16", len(list(models().glob("*.safetensors"))))
    config = summary.config
    attention = 2 * config.hidden_size**2 + 2 * config.hidden_size * config.head_dim * config.num_key_value_heads
    layer = attention + 3 * config.hidden_size * config.intermediate_size + 2 * config.hidden_size
    expected = 2 * layer + 2 * config.vocab_size * config.hidden_size + config.hidden_size
    assert summary.parameters == expected
    assert summary.bytes == 2 * expected


def test_logits_can_leave_the_uniform_distribution(models: Models) -> None:
    folder = models(dtype="fp32")
    with safe_open(sorted(folder.glob("*.safetensors"))[0], "np") as file:
        table = file.get_tensor("model.embed_tokens.weight")
    # A scale of 0.02, right for widths of thousands, would keep every logit near zero at width 128.
    assert np.isclose(table[:1024].std(), 128**-0.5, rtol=0.02)
