"""Hub ids through the hub's real client, against a small server that speaks the hub's endpoints."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from common.weights import hub

Models = Callable[..., Path]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """What the server serves and what it was asked."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.gated: set[str] = set()
        self.requests: list[str] = []
        self.cut_once: set[str] = set()  # files whose first download breaks off half way


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def refuse(self, status: int, code: str) -> None:
        self.answer(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code})

    def do_GET(self) -> None:
        path = self.path.split("?")[0].removeprefix("/api")
        self.hub.requests.append(f"{self.command} {path}")
        match = re.match(r"^/(models/|datasets/)?([^/]+/[^/]+)(?:/(revision|tree|resolve)/([^/]+)(?:/(.*))?)?$", path)
        if match is None:
            self.refuse(404, "EntryNotFound")
            return
        name, action, revision, file = match[2], match[3], match[4], match[5]
        files = self.hub.repositories.get(name)
        if files is None:
            self.refuse(401, "RepoNotFound")
        elif name in self.hub.gated and "Bearer secret" not in self.headers.get("Authorization", ""):
            self.refuse(401, "GatedRepo")
        elif revision not in (None, "main", COMMIT):
            self.refuse(404, "RevisionNotFound")
        elif action in (None, "revision"):
            siblings = [{"rfilename": entry} for entry in files]
            self.answer(200, json.dumps({"id": name, "sha": COMMIT, "siblings": siblings}).encode())
        elif action == "tree":
            entries = [
                {"type": "file", "path": entry, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for entry, data in files.items()
            ]
            self.answer(200, json.dumps(entries).encode(), {"Content-Type": "application/json"})
        elif file not in files:
            self.refuse(404, "EntryNotFound")
        else:
            self.serve(file, files[file])

    do_HEAD = do_GET

    def serve(self, file: str, content: bytes) -> None:
        headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        wanted = self.headers.get("Range")
        if wanted and self.command == "GET":
            start = int(wanted.removeprefix("bytes=").split("-")[0])
            span = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.answer(206, content[start:], {**headers, "Content-Range": span})
            return
        if self.command == "GET" and file in self.hub.cut_once:
            self.hub.cut_once.discard(file)
            self.send_response(200)
            for key, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
            return
        self.answer(200, content, headers)


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
    handler = type("Bound", (Handler,), {"hub": served})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield served, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def run(address: tuple[Hub, str], home: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command line with the client's own variables: endpoint, cache, token."""
    environment = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    environment |= {"HF_ENDPOINT": address[1], "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "*"}
    environment.pop("HF_TOKEN", None)
    command = [sys.executable, "-m", "common.weights", *arguments]
    return subprocess.run(command, env={**environment, **variables}, capture_output=True, text=True, timeout=120)


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
    environment = {**os.environ, "HF_ENDPOINT": hub_at[1], "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1"}
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
