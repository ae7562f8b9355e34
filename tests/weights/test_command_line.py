"""What a person types: exit statuses, messages, and the formats that `get` links, converts or makes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from common import tokenizer
from common.errors import UserError
from common.weights.convert import Options
from common.weights.get import get
from common.weights.inspect import inspect
from common.weights.source import open_source
from common.weights.verify import verify

Models = Callable[..., Path]


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "common.weights", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_get_convert_verify_inspect(tmp_path: Path) -> None:
    tiny, ckpt, back = tmp_path / "tiny", tmp_path / "ckpt", tmp_path / "back"
    assert run("get", "tiny", tiny, "--seed", "3", "--kind", "instruct").returncode == 0
    assert run("convert", tiny, ckpt, "--to", "mindspore").returncode == 0
    assert run("convert", ckpt, back, "--to", "hf").returncode == 0
    done = run("verify", tiny, ckpt, "--logits")
    assert done.returncode == 0, done.stderr
    assert "the same: 39 tensors" in done.stdout
    assert "logits: largest difference 0" in done.stdout
    shown = json.loads(run("inspect", ckpt).stdout)
    assert (shown["format"], shown["dtype"], shown["shards"]) == ("mindspore", "bf16", 1)


def test_models_that_differ_end_in_status_1(models: Models, tmp_path: Path) -> None:
    assert run("get", "tiny", tmp_path / "other", "--seed", "9").returncode == 0
    done = run("verify", models(), tmp_path / "other")
    assert done.returncode == 1
    assert "the models differ" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("convert", "ABSENT", "OUT", "--to", "hf"), "no such model"),
        (("convert", "MODEL", "OUT", "--to", "mindspor"), "did you mean 'mindspore'"),
        (("convert", "MODEL", "OUT", "--to", "hf", "--dtype", "int8"), "unknown dtype"),
        (("convert", "MODEL", "OUT", "--to", "meta", "--split", "2"), "not a split"),
        (("convert", "MODEL", "MODEL", "--to", "meta"), "are the same"),
        (("get", "tiny", "OUT", "--kind", "chat"), "unknown kind"),
        (("get", "tiny", "MODEL"), "not empty"),
        (("inspect", "ABSENT"), "no such model"),
        (("convert", "MODEL", "OUT"), "--to"),
    ],
)
def test_a_wrong_call_ends_in_status_2(
    models: Models, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    places = {"ABSENT": tmp_path / "absent", "OUT": tmp_path / "out", "MODEL": models()}
    done = run(*(places.get(argument, argument) for argument in arguments))
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_model_in_the_wanted_format_is_linked(models: Models, tmp_path: Path) -> None:
    get(str(models()), tmp_path / "m", Options("hf"))
    for file in models().iterdir():
        linked = tmp_path / "m" / file.name
        assert linked.read_bytes() == file.read_bytes()
        if file.suffix == ".safetensors":
            assert linked.samefile(file)
        else:  # what a person may edit is a copy
            assert not linked.samefile(file)


@pytest.mark.parametrize("to", ["mindspore", "mindspore-safetensors", "meta"])
def test_tiny_in_every_format(tmp_path: Path, to: str) -> None:
    get("tiny", tmp_path / "hf", Options("hf"))
    get("tiny", tmp_path / "m", Options(to))
    assert verify(open_source(tmp_path / "hf"), open_source(tmp_path / "m")).same
    get(str(tmp_path / "m"), tmp_path / "linked", Options(to))
    assert open_source(tmp_path / "linked").files[0].samefile(open_source(tmp_path / "m").files[0])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["hf", "linked", "m"]


def test_another_type_is_converted_not_linked(models: Models, tmp_path: Path) -> None:
    get(str(models()), tmp_path / "m", Options("hf", dtype="fp32"))
    assert inspect(tmp_path / "m").dtype == "fp32"


def test_a_tokenizer_that_does_not_fit_is_refused(models: Models, model: Path, tmp_path: Path) -> None:
    large = tmp_path / "large.model"
    lines = tokenizer.TINY.read_bytes().splitlines()
    lines.append(b"enp6enp6eg== %d" % len(lines))
    large.write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(UserError, match="more ids than the model"):
        get(str(model), tmp_path / "m", Options("hf"), tokenizer=large)
    assert not (tmp_path / "m").exists()


@pytest.mark.skipif("LLAMA3_TOKENIZER" not in os.environ, reason="needs LLAMA3_TOKENIZER=path of tokenizer.model")
def test_tiny_with_the_real_vocabulary(tmp_path: Path) -> None:
    get("tiny", tmp_path / "m", Options("hf"), tokenizer=Path(os.environ["LLAMA3_TOKENIZER"]))
    config = inspect(tmp_path / "m").config
    assert (config.vocab_size, config.bos_token_id, config.eos_token_id) == (128256, 128000, 128001)


def adapter(folder: Path, config: dict[str, Any], tensors: dict[str, Any]) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


MODULE = "base_model.model.model.layers.1.self_attn.q_proj"
LORA = {"peft_type": "LORA", "r": 2, "lora_alpha": 8}


def pair(rank: int = 2) -> dict[str, Any]:
    random = np.random.default_rng(0)
    a, b = random.standard_normal((rank, 128)), random.standard_normal((128, rank))
    return {f"{MODULE}.lora_A.weight": a.astype(np.float32), f"{MODULE}.lora_B.weight": b.astype(np.float32)}


def rows(count: int) -> dict[str, Any]:
    name = "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta"
    return {name: np.ones((count, 128), np.float32)}


def test_an_adapter_is_merged_into_its_base(models: Models, tmp_path: Path) -> None:
    base = models(dtype="fp32")
    tensors = pair()
    adapter(tmp_path / "a", {**LORA, "base_model_name_or_path": str(base)}, tensors)
    shown = json.loads(run("inspect", tmp_path / "a").stdout)
    assert shown == {
        "format": "peft", "kind": "LORA", "parameters": 512, "dtype": "fp32", "rank": 2, "alpha": 8,
        "target_modules": None, "base": str(base),
    }  # fmt: skip
    assert run("convert", tmp_path / "a", tmp_path / "m", "--to", "hf").returncode == 0
    a, b = tensors.values()
    merged, original = open_source(tmp_path / "m").tensors, open_source(base).tensors
    for name, tensor in original.items():
        before, after = (source[name].read(0, tensor.shape[0]) for source in (original, merged))
        if "layers.1.self_attn.q_proj" in name:
            assert np.allclose(after, before + 4.0 * (b @ a), atol=1e-5)
        else:
            assert np.array_equal(after, before)


@pytest.mark.parametrize(
    ("config", "tensors", "message"),
    [
        ({**LORA, "peft_type": "IA3"}, pair(), "only LoRA"),
        ({**LORA, "use_dora": True}, pair(), "use_dora"),
        ({**LORA, "layer_replication": [[0, 2]]}, pair(), "layer_replication"),
        ({**LORA, "init_lora_weights": "pissa"}, pair(), "base that its start has changed"),
        ({**LORA, "trainable_token_indices": [1, 2]}, pair() | rows(1), "trained rows do not fit"),
        ({**LORA, "trainable_token_indices": {"lm_head": [1]}}, pair() | rows(1), "trained rows do not fit"),
        ({**LORA, "trainable_token_indices": [5000]}, pair() | rows(1), "trained rows do not fit"),
        ({**LORA, "r": 4}, pair(), "does not match its weights"),
        (LORA, {}, "no tensors"),
        (LORA, dict(list(pair().items())[:1]), "one of two matrices"),
        (LORA, {k.replace("q_proj", "x_proj"): v for k, v in pair().items()}, "module that the base lacks"),
        (LORA, {k.replace("q_proj", "k_proj"): v for k, v in pair().items()}, "does not fit"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(
    models: Models, tmp_path: Path, config: dict[str, Any], tensors: dict[str, Any], message: str
) -> None:
    adapter(tmp_path / "a", config, tensors)
    done = run("convert", tmp_path / "a", tmp_path / "m", "--to", "hf", "--base", models())
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "m").exists()


def test_a_bare_checkpoint_takes_its_config_from_elsewhere(models: Models, tmp_path: Path) -> None:
    assert run("convert", models(), tmp_path / "m", "--to", "mindspore").returncode == 0
    alone = tmp_path / "alone" / "llama3-8b.ckpt"
    alone.parent.mkdir()
    shutil.copyfile(tmp_path / "m" / "llama3.ckpt", alone)
    done = run("convert", alone, tmp_path / "hf", "--to", "hf")
    assert done.returncode == 2
    assert "no config beside them" in done.stderr
    assert "--config" in done.stderr
    done = run("convert", alone, tmp_path / "hf", "--to", "hf", "--config", models() / "config.json")
    assert done.returncode == 0, done.stderr
    assert verify(open_source(models()), open_source(tmp_path / "hf")).same
