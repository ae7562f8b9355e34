"""Bad input ends in one clear message, leaves the source as it was, and nothing under the target's name."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import UserError
from common.weights import containers, mindspore_ckpt, pickle_reading, torch_files
from common.weights import convert as converting
from common.weights.convert import Options, convert
from common.weights.source import open_source

Models = Callable[..., Path]
INDEX = "model.safetensors.index.json"


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def edit_header(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = file.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def truncate(file: Path, by: int) -> None:
    os.truncate(file, file.stat().st_size - by)


def wrong_shape(header: dict[str, Any]) -> None:
    entry = header[next(name for name in header if name.endswith("k_proj.weight"))]
    entry["shape"] = [entry["shape"][1], entry["shape"][0]]


def drop_tensor(folder: Path) -> None:
    single(folder)
    file = folder / "model.safetensors"
    edit_header(file, lambda header: header.update({"other.weight": header.pop("model.norm.weight")}))


def single(folder: Path) -> None:
    """The same model in one file without an index."""
    whole = folder.with_name("whole")
    convert(folder, whole, Options("hf"))
    shutil.rmtree(folder)
    whole.rename(folder)


def edit_json(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads(file.read_text())
    change(value)
    file.write_text(json.dumps(value))


def no_weights(folder: Path) -> None:
    for file in [*shards(folder), folder / INDEX]:
        file.unlink()


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated shard": (lambda f: truncate(shards(f)[1], 1), "truncated"),
    "empty shard": (lambda f: shards(f)[0].write_bytes(b""), "empty"),
    "no whole length": (lambda f: shards(f)[0].write_bytes(b"abc"), "truncated"),
    "header too long": (lambda f: shards(f)[0].write_bytes(struct.pack("<Q", 10**6) + b"{}"), "longer than the file"),
    "header no JSON": (lambda f: shards(f)[0].write_bytes(struct.pack("<Q", 4) + b"\xff{]}"), "not JSON"),
    "trailing bytes": (lambda f: shards(f)[0].open("ab").write(b"x" * 9), "after its last tensor"),
    "missing shard": (lambda f: shards(f)[1].unlink(), "names a shard that is missing"),
    "no config": (lambda f: (f / "config.json").unlink(), "no config"),
    "no weights": (no_weights, "no weights"),
    "wrong shape": (lambda f: edit_header(shards(f)[0], wrong_shape), "another shape"),
    "missing and extra tensor": (drop_tensor, "'model.norm.weight' is missing"),
    "index names what a shard lacks": (
        lambda f: edit_json(f / INDEX, lambda i: i["weight_map"].update({"x.weight": shards(f)[0].name})),
        "which its shard lacks",
    ),
    "index leaves the folder": (
        lambda f: edit_json(f / INDEX, lambda i: i["weight_map"].update({"x": "../../etc/passwd"})),
        "outside of its folder",
    ),
    "unknown dtype": (
        lambda f: edit_header(shards(f)[0], lambda h: h["model.embed_tokens.weight"].update(dtype="F4")),
        "unknown dtype",
    ),
    "quantized": (
        lambda f: edit_header(shards(f)[0], lambda h: h["model.embed_tokens.weight"].update(dtype="I16")),
        "dtype that Llama 3 weights do not have",
    ),
    "other model": (lambda f: edit_json(f / "config.json", lambda c: c.update(model_type="gpt2")), "not a Llama"),
    "sizes contradict": (
        lambda f: edit_json(f / "config.json", lambda c: c.update(num_key_value_heads=3)),
        "contradict",
    ),
    "other size": (lambda f: edit_json(f / "config.json", lambda c: c.update(num_hidden_layers=3)), "is missing"),
    "config no JSON": (lambda f: (f / "config.json").write_text("{'a': 1}"), "not JSON"),
    "tokenizer too large": (
        lambda f: edit_json(f / "config.json", lambda c: c.update(pad_token_id=7)),
        "config.json and the tokenizer disagree",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_model_is_refused_and_left_alone(model: Path, tmp_path: Path, name: str) -> None:
    damage, message = BROKEN[name]
    damage(model)
    before = {file: file.stat().st_mtime_ns for file in model.iterdir()}
    with pytest.raises(UserError, match=message):
        convert(model, tmp_path / "out", Options("mindspore"))
    assert {file: file.stat().st_mtime_ns for file in model.iterdir()} == before
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.partial").exists()


def test_places_that_would_lose_something(model: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("kept")
    for target, message in (
        (model, "the same"),
        (Path(f"{model}/."), "the same"),
        (model / "inner", "inside the source"),
        (tmp_path / "full", "not empty"),
        (tmp_path / "full" / "mine.txt", "is a file"),
        (tmp_path / "x.ckpt", "is a folder, not a file"),
    ):
        with pytest.raises(UserError, match=message):
            convert(model, target, Options("meta"))
    assert (tmp_path / "full" / "mine.txt").read_text() == "kept"
    assert open_source(model).tensors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options("mindspor"), "did you mean 'mindspore'"),
        (Options("hf", dtype="fp8"), "unknown dtype"),
        (Options("hf", qkv_concat=True), "qkv-concat"),
        (Options("hf", split=2), "cannot be split"),
    ],
)
def test_options_that_do_not_fit(model: Path, tmp_path: Path, options: Options, message: str) -> None:
    with pytest.raises(UserError, match=message):
        convert(model, tmp_path / "out", options)


def test_a_split_that_does_not_divide(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be split"):
        convert(model, tmp_path / "out", Options("meta", split=3))
    assert not (tmp_path / "out.partial").exists()


@pytest.mark.parametrize("text", ["", "0GB", "2 apples", "-1GB"])
def test_a_size_that_is_none(text: str) -> None:
    with pytest.raises(UserError, match="not a size"):
        converting.parse_size(text)


@pytest.mark.parametrize(("text", "size"), [("2GB", 2 * 10**9), ("512MiB", 2**29), ("1000", 1000), ("1.5kb", 1500)])
def test_sizes(text: str, size: int) -> None:
    assert converting.parse_size(text) == size


# --- MindSpore's .ckpt


@pytest.mark.parametrize("to", ["mindspore", "meta"])
@given(fraction=st.floats(0.001, 0.999))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_checkpoint_cut_anywhere_is_refused(
    models: Models, tmp_path_factory: pytest.TempPathFactory, to: str, fraction: float
) -> None:
    whole = tmp_path_factory.getbasetemp() / f"cut-{to}"
    if not whole.exists():
        convert(models(), whole, Options(to))
    folder = tmp_path_factory.mktemp("cut")
    name = "llama3.ckpt" if to == "mindspore" else "consolidated.00.pth"
    for file in whole.iterdir():
        shutil.copyfile(file, folder / file.name)
    os.truncate(folder / name, int((folder / name).stat().st_size * fraction))
    with pytest.raises(UserError):
        open_source(folder)


def test_a_checkpoint_cut_between_two_tensors_is_refused(models: Models, tmp_path: Path) -> None:
    # MindSpore itself loads such a file in silence.
    convert(models(), tmp_path / "m", Options("mindspore"))
    file = tmp_path / "m" / "llama3.ckpt"
    last = list(containers.read(file).values())[-1]
    content = file.read_bytes()
    start = content.rindex(b"lm_head.weight", 0, last.extents[0].offset)
    while True:  # back to where the last message begins
        start -= 1
        os.truncate(file, start)
        try:
            names = containers.read(file)
            break
        except UserError:
            file.write_bytes(content)
    assert "lm_head.weight" not in names
    with pytest.raises(UserError, match=r"lm_head\.weight' is missing"):
        open_source(tmp_path / "m")


def test_a_tensor_that_lost_its_last_value_is_refused(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mindspore_ckpt, "CHUNK", 50_000)  # instead of half a GB: many values a tensor
    convert(models(), tmp_path / "m", Options("mindspore"))
    file = tmp_path / "m" / "llama3.ckpt"
    last = list(containers.read(file).values())[-1]
    os.truncate(file, last.extents[-2].offset + last.extents[-2].length)
    with pytest.raises(UserError, match="does not match its shape"):
        open_source(tmp_path / "m")


@given(st.binary(min_size=1, max_size=200))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rubbish_is_a_clear_error(tmp_path: Path, content: bytes) -> None:
    for suffix in (".ckpt", ".pth", ".safetensors"):
        file = tmp_path / f"rubbish{suffix}"
        file.write_bytes(content)
        with pytest.raises(UserError):
            open_source(file)


# --- pickles: nothing in them is ever run


class Command:
    """What a malicious checkpoint holds: unpickling it creates a file."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.witness}",)


class Evaluation(Command):
    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (f"open({str(self.witness)!r}, 'w')",)


def archive(file: Path, content: bytes) -> Path:
    with zipfile.ZipFile(file, "w") as target:
        target.writestr("archive/data.pkl", content)
        target.writestr("archive/version", "3\n")
    return file


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("malice", [Command, Evaluation])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path: Path, malice: type[Command], protocol: int) -> None:
    witness = tmp_path / "ran"
    content = pickle.dumps({"model": {"a": malice(witness)}}, protocol)
    pickle.loads(content)  # allow L009: our own bytes, to show that the attack works
    assert witness.exists()  # the attack works where a file is unpickled
    witness.unlink()
    with pytest.raises(UserError, match="asks to run code"):
        torch_files.read(archive(tmp_path / "pytorch_model.bin", content))
    assert not witness.exists()


@pytest.mark.parametrize(
    "name", ["torch.load", "torch.hub.load", "numpy.memmap", "torch.ops.load_library", "subprocess.run"]
)
def test_names_that_load_or_run_are_refused(tmp_path: Path, name: str) -> None:
    module, _, function = name.rpartition(".")
    content = b"\x80\x02c" + f"{module}\n{function}\n".encode() + b"X\x01\x00\x00\x00x\x85R."
    with pytest.raises(UserError, match="asks to run code"):
        pickle_reading.read(content, tmp_path / "x")


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
)


@given(PLAIN)
@settings(deadline=None)
def test_plain_pickles_are_read_as_pickle_reads_them(value: Any) -> None:
    for protocol in (0, 2, 4, 5):
        assert pickle_reading.read(pickle.dumps(value, protocol), Path("x")) == value


def test_a_plain_zip_is_no_checkpoint(tmp_path: Path) -> None:
    file = tmp_path / "x.pth"
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as target:
        target.writestr("readme.txt", "hello")
    file.write_bytes(content.getvalue())
    with pytest.raises(UserError, match=r"no data\.pkl"):
        torch_files.read(file)
