"""What is converted there and back has every bit of the original; verify finds every mistake."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common.weights import mindspore_ckpt
from common.weights.convert import Options, convert
from common.weights.dtypes import FP32, Array, cast
from common.weights.source import Source, open_source
from common.weights.tensors import Held, Tensor, in_dtype
from common.weights.verify import verify
from common.weights.views import Alternating, Columns, EveryNth, HeadsPermuted, Rows, RowsReplaced, SideBySide, Stacked

Models = Callable[..., Path]
FORMATS = ("hf", "mindspore", "mindspore-safetensors", "meta")
GATE, UP = "model.layers.0.mlp.gate_proj.weight", "model.layers.0.mlp.up_proj.weight"
QUERY, KEY = "model.layers.1.self_attn.q_proj.weight", "model.layers.1.self_attn.k_proj.weight"
OUT = "model.layers.1.self_attn.o_proj.weight"


def contents(folder: Path) -> dict[str, bytes]:
    return {name: tensor.read(0, tensor.shape[0]).tobytes() for name, tensor in open_source(folder).tensors.items()}


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("to", FORMATS)
def test_there_and_back_is_bit_exact(models: Models, tmp_path: Path, to: str, dtype: str) -> None:
    original = models(dtype=dtype)
    convert(original, tmp_path / "there", Options(to, shard_size=300_000))
    there = open_source(tmp_path / "there")
    assert there.format == to
    assert there.config.dtype == dtype  # a bf16 source stays bf16
    convert(tmp_path / "there", tmp_path / "back", Options("hf"))
    assert contents(tmp_path / "back") == contents(original) == contents(tmp_path / "there")
    assert json.loads((tmp_path / "back" / "config.json").read_text()) == json.loads(
        (original / "config.json").read_text()
    )


@pytest.mark.parametrize(
    "options",
    [
        Options("mindspore", split=2),
        Options("mindspore-safetensors", split=2),
        Options("meta", split=2),
        Options("mindspore", qkv_concat=True),
        Options("mindspore", qkv_concat=True, split=2),
    ],
    ids=str,
)
def test_split_and_joined_models_are_read(models: Models, tmp_path: Path, options: Options) -> None:
    convert(models(), tmp_path / "there", options)
    assert contents(tmp_path / "there") == contents(models())


def test_a_trailing_slash_and_a_single_file_mean_the_same(models: Models, tmp_path: Path) -> None:
    convert(models(), tmp_path / "there", Options("mindspore"))
    for path in (Path(str(tmp_path / "there") + "/"), tmp_path / "there" / "llama3.ckpt"):
        assert contents(path) == contents(models())


def test_tied_tables_are_stored_twice_for_meta_alone(models: Models, tmp_path: Path) -> None:
    source = open_source(models())
    tied = {name: tensor for name, tensor in source.tensors.items() if name != "lm_head.weight"}
    folder = write_ckpt(
        tmp_path / "tied", replace(source, config=replace(source.config, tie_word_embeddings=True)), tied
    )
    convert(folder, tmp_path / "meta", Options("meta"))
    assert b"output.weight" in (tmp_path / "meta" / "consolidated.00.pth").read_bytes()
    (tmp_path / "meta" / "config.json").unlink()
    back = open_source(tmp_path / "meta")
    assert back.config.tie_word_embeddings
    assert "lm_head.weight" not in back.tensors
    assert contents(tmp_path / "meta") == contents(folder)


def test_a_change_of_type_rounds_once(models: Models, tmp_path: Path) -> None:
    convert(models(dtype="fp32"), tmp_path / "bf16", Options("meta", dtype="bf16"))
    result = open_source(tmp_path / "bf16")
    original = open_source(models(dtype="fp32"))
    assert {tensor.dtype.name for tensor in result.tensors.values()} == {"bf16"}
    assert json.loads((tmp_path / "bf16" / "config.json").read_text())["torch_dtype"] == "bfloat16"
    for name, tensor in original.tensors.items():
        expected = cast(tensor.read(0, tensor.shape[0]), FP32, result.tensors[name].dtype)
        assert np.array_equal(result.tensors[name].read(0, tensor.shape[0]), expected)
    comparison = verify(original, result)
    assert comparison.same
    assert comparison.casts == len(original.tensors)
    assert not verify(result, original).same  # the lost bits do not come back


def test_large_tensors_are_split_over_values(models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mindspore_ckpt, "CHUNK", 50_000)  # instead of half a GB
    convert(models(), tmp_path / "there", Options("mindspore"))
    assert (tmp_path / "there" / "llama3.ckpt").read_bytes().count(b"tok_embeddings.embedding_weight") > 3
    assert contents(tmp_path / "there") == contents(models())


# --- verify: what is planted is found, and named


def write_ckpt(folder: Path, source: Source, tensors: Mapping[str, Tensor]) -> Path:
    """`tensors` (Hugging Face's names) as a MindSpore folder with the config of `source`."""
    from common.files import write_json
    from common.weights.config import to_hugging_face
    from common.weights.layouts import name_in
    from common.weights.writing import write_file

    folder.mkdir()
    plan = mindspore_ckpt.plan("m.ckpt", {name_in("mindspore", name): tensor for name, tensor in tensors.items()})
    write_file(folder, plan, report=lambda _: None)
    write_json(folder / "config.json", to_hugging_face(source.config))
    return folder


def changed(tensor: Tensor, change: Callable[[Array], Array]) -> Tensor:
    return Held(tensor.dtype, change(tensor.read(0, tensor.shape[0]).copy()))


def flip_one_bit(values: Array) -> Array:
    values.view(np.uint16)[-1, -1] ^= 1
    return values


def make_nan(values: Array) -> Array:
    values.view(np.uint16)[3, 5] = 0x7FC0
    return values


PLANTED: dict[str, tuple[Callable[[dict[str, Tensor]], dict[str, Tensor]], str, str]] = {
    "missing permutation": (
        lambda t: {**t, QUERY: HeadsPermuted(t[QUERY], 32, to_meta=True)},
        QUERY,
        "Q/K permutation is missing",
    ),
    "permuted twice": (
        lambda t: {**t, KEY: HeadsPermuted(t[KEY], 32, to_meta=False)},
        KEY,
        "Q/K permutation was applied twice",
    ),
    "gate and up swapped": (lambda t: {**t, GATE: t[UP], UP: t[GATE]}, GATE, "gate and up are swapped"),
    "transposed wo": (lambda t: {**t, OUT: changed(t[OUT], lambda v: np.ascontiguousarray(v.T))}, OUT, "transposed"),
    "one bit": (lambda t: {**t, OUT: changed(t[OUT], flip_one_bit)}, OUT, "1 of 16384 values differ"),
    "no number": (lambda t: {**t, OUT: changed(t[OUT], make_nan)}, OUT, "1 values are not finite"),
    "layers swapped": (
        lambda t: {**t, QUERY: t[QUERY.replace(".1.", ".0.")], QUERY.replace(".1.", ".0."): t[QUERY]},
        QUERY,
        "values differ",
    ),
}


@pytest.mark.parametrize("defect", PLANTED)
def test_a_planted_defect_is_found_and_named(models: Models, tmp_path: Path, defect: str) -> None:
    source = open_source(models())
    plant, name, reason = PLANTED[defect]
    folder = write_ckpt(tmp_path / "m", source, plant(source.tensors))
    comparison = verify(source, open_source(folder))
    assert not comparison.same
    assert any(problem.startswith(name) and reason in problem for problem in comparison.problems), comparison.problems


def test_the_same_without_a_defect(models: Models, tmp_path: Path) -> None:
    source = open_source(models())
    comparison = verify(source, open_source(write_ckpt(tmp_path / "m", source, source.tensors)))
    assert comparison.same
    assert comparison.tensors == len(source.tensors)


def test_a_config_that_computes_something_else_is_found(models: Models, model: Path) -> None:
    raw = json.loads((model / "config.json").read_text())
    raw["rope_theta"] = raw["rope_parameters"]["rope_theta"] = 10000.0
    (model / "config.json").write_text(json.dumps(raw))
    comparison = verify(open_source(models()), open_source(model))
    assert any("rope_theta" in problem for problem in comparison.problems)


# --- views: any range of rows equals the same rows of the whole


def test_every_view_gives_any_rows(models: Models) -> None:
    random = np.random.default_rng(0)
    one, other = (Held(FP32, random.standard_normal((64, 6)).astype(np.float32)) for _ in range(2))
    a, b = one.read(0, 64), other.read(0, 64)
    views: list[tuple[Tensor, Array]] = [
        (Rows(one, 5, 40), a[5:40]),
        (Stacked([one, other, one]), np.concatenate([a, b, a])),
        (Columns(one, 2, 5), a[:, 2:5]),
        (SideBySide([one, other]), np.concatenate([a, b], axis=1)),
        (Alternating([one, other]), np.stack([a, b], axis=1).reshape(128, 6)),
        (EveryNth(one, 1, 2), a[1::2]),
        (HeadsPermuted(one, 16, to_meta=True), a.reshape(4, 2, 8, 6).swapaxes(1, 2).reshape(64, 6)),
        (in_dtype(one, FP32), a),
        (RowsReplaced(one, [63, 3, 0], Held(FP32, b[:3])), np.concatenate([b[2:3], a[1:3], b[1:2], a[4:63], b[:1]])),
    ]
    for view, expected in views:
        assert view.shape == expected.shape
        for start, stop in ((0, view.shape[0]), (3, 4), (1, view.shape[0] - 1), (7, 22)):
            assert np.array_equal(view.read(start, stop), expected[start:stop]), type(view)
        assert np.array_equal(np.concatenate(list(view.blocks(100))), expected), type(view)
