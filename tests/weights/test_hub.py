"""Hub ids through the hub's real client, against a small server that speaks the hub's endpoints."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from local_hub import Hub, serving, variables
from safetensors.numpy import save_file

from common.errors import UserError
from common.weights import hub

Models = Callable[..., Path]


@pytest.fixture(scope="module")
def address(models: Models) -> Iterator[tuple[Hub, str]]:
    contents = {file.name: file.read_bytes() for file in models().iterdir()}
    served = Hub()
    served.repositories = {
        "meta-llama/tiny": {**contents, "original/consolidated.00.pth": b"twice", "pytorch_model.bin": b"thrice"},
        "meta-llama/gated": contents,
        "someone/old": {"config.json": contents["config.json"], "pytorch_model.bin": b"x"},
        "someone/readme": {"README.md": b"nothing here"},
        "someone/data": {"train.jsonl": b'{"a": 1}\n', "deep/er.json": b"{}"},
    }
    served.gated = {"meta-llama/gated"}
    with serving(served) as place:
        yield served, place


def run(address: tuple[Hub, str], home: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """The command line with the client's own variables: endpoint, cache, token."""
    command = [sys.executable, "-m", "common.weights", *arguments]
    environment = {**variables(address[1], home), **more}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


@pytest.fixture
def hub_at(address: tuple[Hub, str]) -> tuple[Hub, str]:
    address[0].requests.clear()
    return address


def test_a_model_is_fetched_once_then_used_without_a_network(
    hub_at: tuple[Hub, str], models: Models, tmp_path: Path
) -> None:
    done = run(hub_at, tmp_path / "home", "get", "meta-llama/tiny", str(tmp_path / "m"))
    assert done.returncode == 0, done.stderr
    for file in models().glob("*.safetensors"):
        assert (tmp_path / "m" / file.name).read_bytes() == file.read_bytes()
    fetched = [request for request in hub_at[0].requests if request.startswith("GET") and "/resolve/" in request]
    assert not any("original" in request or "pytorch_model.bin" in request for request in fetched)
    offline = run(hub_at, tmp_path / "home", "get", "meta-llama/tiny", str(tmp_path / "again"), HF_HUB_OFFLINE="1")
    assert offline.returncode == 0, offline.stderr


def test_a_download_that_breaks_off_is_made_whole(hub_at: tuple[Hub, str], models: Models, tmp_path: Path) -> None:
    name = min(file.name for file in models().glob("*.safetensors"))
    hub_at[0].cut_once = {name}
    done = run(hub_at, tmp_path / "home", "get", "meta-llama/tiny", str(tmp_path / "m"))
    assert not hub_at[0].cut_once  # it did break off
    if done.returncode:
        assert "Traceback" not in done.stderr
        done = run(hub_at, tmp_path / "home", "get", "meta-llama/tiny", str(tmp_path / "m"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "m" / name).read_bytes() == (models() / name).read_bytes()


def test_an_adapters_base_and_what_is_verified_may_be_ids(
    hub_at: tuple[Hub, str], models: Models, tmp_path: Path
) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    config = {"peft_type": "LORA", "base_model_name_or_path": "meta-llama/tiny", "trainable_token_indices": [3]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    name = "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta"
    save_file({name: np.ones((1, 128), np.float32)}, folder / "adapter_model.safetensors")
    arguments = ("convert", str(folder), str(tmp_path / "m"), "--to", "hf")
    done = run(hub_at, tmp_path / "home", *arguments)
    assert done.returncode == 2
    assert "name it with --base: a folder or a hub id" in done.stderr
    done = run(hub_at, tmp_path / "home", *arguments, "--base", "meta-llama/tiny")
    assert done.returncode == 0, done.stderr
    done = run(hub_at, tmp_path / "home", "verify", "meta-llama/tiny", str(tmp_path / "m"))
    assert done.returncode == 1, done.stderr
    assert "model.embed_tokens.weight: 128 of 163840 values differ" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message", "status"),
    [
        (("get", "meta-llama/gated", "OUT"), "gated", 2),
        (("get", "meta-llama/absent", "OUT"), "no such model, or hides it", 2),
        (("get", "meta-llama/tiny", "OUT", "--revision", "v9"), "no such revision", 2),
        (("get", "someone/readme", "OUT"), "no weights", 2),
        (("get", "someone/old", "OUT"), "pytorch_model.bin", 2),
        (("get", "./absent", "OUT"), "no such model", 2),
    ],
)
def test_what_is_missing_is_one_clear_message(
    hub_at: tuple[Hub, str], tmp_path: Path, arguments: tuple[str, ...], message: str, status: int
) -> None:
    filled = [str(tmp_path / "out") if argument == "OUT" else argument for argument in arguments]
    done = run(hub_at, tmp_path / "home", *filled)
    assert done.returncode == status, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_token_opens_a_gated_model(hub_at: tuple[Hub, str], tmp_path: Path) -> None:
    done = run(hub_at, tmp_path / "home", "get", "meta-llama/gated", str(tmp_path / "m"), HF_TOKEN="secret")
    assert done.returncode == 0, done.stderr


def test_no_network_is_one_clear_message(tmp_path: Path) -> None:
    nobody = (Hub(), "http://127.0.0.1:9")
    done = run(nobody, tmp_path / "home", "get", "meta-llama/tiny", str(tmp_path / "m"))
    assert done.returncode == 1, done.stderr
    assert "cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_data_set_is_fetched_whole(hub_at: tuple[Hub, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "from common.weights.hub import fetch; print(fetch('someone/data', 'dataset'))"
    environment = variables(hub_at[1], tmp_path)
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    folder = Path(done.stdout.strip().splitlines()[-1])
    assert (folder / "train.jsonl").read_text() == '{"a": 1}\n'
    assert (folder / "deep" / "er.json").is_file()


def test_a_folder_that_looks_like_an_id_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert hub.resolve("org/name") == Path("org/name")
    with pytest.raises(UserError, match="no such model"):
        hub.resolve("/absent/folder")
