"""Names and rows of every format, against the formats' own definitions rather than our own inverse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import yaml

from common.weights import containers
from common.weights.convert import Options, convert
from common.weights.source import open_source
from common.weights.tensors import Tensor

Models = Callable[..., Path]
HEADS, KEYS, HEAD_DIM = 4, 2, 32
QUERY = "model.layers.1.self_attn.q_proj.weight"


def whole(tensor: Tensor) -> npt.NDArray[np.generic]:
    return tensor.read(0, tensor.shape[0])


def stored(file: Path, name: str) -> npt.NDArray[np.generic]:
    return whole(containers.read(file)[name].open())


def layer(models: Models) -> dict[str, npt.NDArray[np.generic]]:
    source = open_source(models(dtype="fp32"))
    prefix = "model.layers.1."
    return {
        name.removeprefix(prefix).removesuffix(".weight"): whole(tensor)
        for name, tensor in source.tensors.items()
        if name.startswith(prefix)
    }


def test_meta_pairs_neighbouring_rows(models: Models, tmp_path: Path) -> None:
    convert(models(dtype="fp32"), tmp_path / "m", Options("meta"))
    hf = layer(models)
    for name, ours, heads in (("wq", "q_proj", HEADS), ("wk", "k_proj", KEYS)):
        meta = stored(tmp_path / "m" / "consolidated.00.pth", f"layers.1.attention.{name}.weight")
        for head in range(heads):
            for i in range(HEAD_DIM // 2):
                base = head * HEAD_DIM
                # Hugging Face rotates rows i and i + half together, Meta rows 2i and 2i + 1.
                assert np.array_equal(meta[base + 2 * i], hf[f"self_attn.{ours}"][base + i])
                assert np.array_equal(meta[base + 2 * i + 1], hf[f"self_attn.{ours}"][base + i + HEAD_DIM // 2])
    for name, ours in (("attention.wv", "self_attn.v_proj"), ("feed_forward.w2", "mlp.down_proj")):
        meta = stored(tmp_path / "m" / "consolidated.00.pth", f"layers.1.{name}.weight")
        assert np.array_equal(meta, hf[ours])


def test_mindspore_renames_and_permutes_nothing(models: Models, tmp_path: Path) -> None:
    convert(models(dtype="fp32"), tmp_path / "m", Options("mindspore"))
    hf = layer(models)
    file = tmp_path / "m" / "llama3.ckpt"
    for name, ours in (
        ("attention.wq", "self_attn.q_proj"),
        ("attention.wo", "self_attn.o_proj"),
        ("feed_forward.w1", "mlp.gate_proj"),
        ("feed_forward.w2", "mlp.down_proj"),
        ("feed_forward.w3", "mlp.up_proj"),
        ("attention_norm", "input_layernorm"),
        ("ffn_norm", "post_attention_layernorm"),
    ):
        assert np.array_equal(stored(file, f"model.layers.1.{name}.weight"), hf[ours])
    names = set(containers.read(file))
    assert {"model.tok_embeddings.embedding_weight", "model.norm_out.weight", "lm_head.weight"} <= names


def test_qkv_concat_groups_by_key_head(models: Models, tmp_path: Path) -> None:
    convert(models(dtype="fp32"), tmp_path / "m", Options("mindspore", qkv_concat=True))
    hf = layer(models)
    file = tmp_path / "m" / "llama3.ckpt"
    q, k, v = (hf[f"self_attn.{name}_proj"].reshape(KEYS, -1, 128) for name in "qkv")
    expected = np.concatenate([q, k, v], axis=1).reshape(-1, 128)
    assert np.array_equal(stored(file, "model.layers.1.attention.w_qkv.weight"), expected)
    gate_hidden = stored(file, "model.layers.1.feed_forward.w_gate_hidden.weight")
    assert np.array_equal(gate_hidden[0::2], hf["mlp.gate_proj"])
    assert np.array_equal(gate_hidden[1::2], hf["mlp.up_proj"])
    assert "model.layers.1.attention.wq.weight" not in containers.read(file)


@pytest.mark.parametrize(
    ("to", "file", "query"),
    [
        ("mindspore", "rank_{}/checkpoint_{}.ckpt", "model.layers.1.attention.wq.weight"),
        ("meta", "consolidated.0{}.pth", "layers.1.attention.wv.weight"),
    ],
)
def test_a_split_gives_each_rank_its_heads(models: Models, tmp_path: Path, to: str, file: str, query: str) -> None:
    convert(models(dtype="fp32"), tmp_path / "m", Options(to, split=2))
    hf, out = layer(models), query[:-9] + "wo.weight"
    rows = hf["self_attn.q_proj"] if to == "mindspore" else hf["self_attn.v_proj"]
    for rank in range(2):
        part = tmp_path / "m" / file.format(rank, rank)
        half = len(rows) // 2
        assert np.array_equal(stored(part, query), rows[rank * half : (rank + 1) * half])
        assert np.array_equal(stored(part, out), hf["self_attn.o_proj"][:, rank * 64 : (rank + 1) * 64])
        feed_forward = out.replace("attention.wo", "feed_forward.{}").format
        assert np.array_equal(stored(part, feed_forward("w1")), hf["mlp.gate_proj"][rank * 192 : (rank + 1) * 192])
        assert np.array_equal(stored(part, feed_forward("w2")), hf["mlp.down_proj"][:, rank * 192 : (rank + 1) * 192])
        assert np.array_equal(stored(part, query[:-19] + "ffn_norm.weight"), hf["post_attention_layernorm"])


def test_configs_are_translated(models: Models, tmp_path: Path) -> None:
    convert(models(), tmp_path / "ms", Options("mindspore"))
    convert(models(), tmp_path / "meta", Options("meta"))
    section = yaml.safe_load((tmp_path / "ms" / "model_config.yaml").read_text())["model"]["model_config"]
    assert (section["hidden_size"], section["num_layers"], section["num_heads"], section["n_kv_heads"]) == (
        128,
        2,
        4,
        2,
    )
    assert (section["intermediate_size"], section["vocab_size"], section["theta"]) == (384, 1280, 500000.0)
    assert (section["bos_token_id"], section["eos_token_id"], section["pad_token_id"]) == (1024, 1025, 1028)
    params = json.loads((tmp_path / "meta" / "params.json").read_text())
    assert (params["dim"], params["n_layers"], params["n_heads"], params["n_kv_heads"]) == (128, 2, 4, 2)
    # Meta's own rule gives the feed-forward size back.
    size = int(params["ffn_dim_multiplier"] * int(2 * 4 * params["dim"] / 3))
    assert params["multiple_of"] * -(-size // params["multiple_of"]) == 384


@pytest.mark.parametrize(
    ("dim", "ffn", "multiplier", "multiple"),
    [
        (4096, 14336, 1.3, 1024),
        (8192, 28672, 1.3, 4096),
        (16384, 53248, 1.2, 4096),
        (2048, 8192, 1.5, 256),
        (3072, 8192, 1.0, 256),
    ],
)
def test_metas_published_sizes_follow_from_the_rule(dim: int, ffn: int, multiplier: float, multiple: int) -> None:
    from common.weights.translate import _ffn

    assert _ffn(dim, multiplier, multiple) == ffn


@pytest.mark.parametrize(("to", "own"), [("mindspore", "model_config.yaml"), ("meta", "params.json")])
def test_a_formats_own_config_is_enough(models: Models, tmp_path: Path, to: str, own: str) -> None:
    convert(models(), tmp_path / "m", Options(to))
    expected = open_source(tmp_path / "m").config
    (tmp_path / "m" / "config.json").unlink()
    assert (tmp_path / "m" / own).is_file()
    assert open_source(tmp_path / "m").config == expected


def test_metas_own_folder_says_base_or_instruct_by_its_weights(models: Models, tmp_path: Path) -> None:
    for kind in ("base", "instruct"):
        convert(models(kind), tmp_path / kind, Options("meta"))
        for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
            (tmp_path / kind / name).unlink()
        convert(tmp_path / kind, tmp_path / f"{kind}-hf", Options("hf"))
        config = json.loads((tmp_path / f"{kind}-hf" / "config.json").read_text())
        assert config["eos_token_id"] == {"base": 1025, "instruct": 1033}[kind]
