"""modelscope: ids through ModelScope's real client, against a small server that speaks its endpoints."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from common.errors import UserError
from common.weights import hub

pytest.importorskip("modelscope", reason="ModelScope's client is not installed")

Models = Callable[..., Path]
TOKEN = "ms-secret"


class Server:
    """What the server serves and what it was asked."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.requests: list[str] = []
        self.authorised: set[str] = set()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: Server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def told(self, data: Any, status: int = 200, message: str = "success") -> None:
        body = {"Code": status, "Success": status == 200, "Data": data, "Message": message, "RequestId": "1"}
        self.answer(status, json.dumps(body).encode())

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        self.served.requests.append(url.path)
        credentials = [self.headers.get("Authorization", ""), self.headers.get("Cookie", "")]
        if any(TOKEN in each for each in credentials):
            self.served.authorised.add(url.path)
        if "/LLM-Research/tiny/" not in url.path:
            self.told(None, 404, "Record not found" if "/repo" in url.path else "no such page")
        elif query.get("Revision", ["master"])[0] != "master":
            self.told(None, 404, "revision not found")
        elif url.path.endswith(("/repo/files", "/repo/tree")):
            entries = [
                {"Name": name, "Path": name, "Type": "blob", "Size": len(data), "Revision": "c0ffee",
                 "Sha256": hashlib.sha256(data).hexdigest(), "CommittedDate": 1_700_000_000, "IsLFS": False}
                for name, data in self.served.files.items()
            ]  # fmt: skip
            self.told({"Files": entries, "LatestCommitter": {"Revision": "c0ffee"}})
        else:
            self.answer(200, self.served.files[query["FilePath"][0]])

    do_HEAD = do_GET
    do_POST = do_GET


@pytest.fixture
def server(models: Models) -> Iterator[tuple[Server, str]]:
    served = Server({file.name: file.read_bytes() for file in models().iterdir()} | {"pytorch_model.bin": b"twice"})
    listening = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"served": served}))
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    yield served, f"http://127.0.0.1:{listening.server_port}"
    listening.shutdown()
    listening.server_close()


def get(address: str, home: Path, identifier: str, *options: str, **more: str) -> subprocess.CompletedProcess[str]:
    """`weights get` with the client's own variables: endpoint, cache, token."""
    variables = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    variables |= {"MODELSCOPE_ENDPOINT": address, "MODELSCOPE_CACHE": str(home / "cache"), "HOME": str(home), **more}
    command = [sys.executable, "-m", "common.weights", "get", identifier, str(home / "out"), "--to", "hf", *options]
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120)


def test_a_model_is_fetched_with_the_clients_token_and_cache(
    server: tuple[Server, str], models: Models, tmp_path: Path
) -> None:
    served, address = server
    done = get(address, tmp_path, "modelscope:LLM-Research/tiny", MODELSCOPE_API_TOKEN=TOKEN)
    assert done.returncode == 0, done.stderr
    shards = sorted(models().glob("*.safetensors"))
    assert shards
    for shard in shards:
        assert (tmp_path / "out" / shard.name).read_bytes() == shard.read_bytes()
        assert list((tmp_path / "cache").rglob(shard.name)), "the download is not in the client's cache"
    assert not list((tmp_path / "cache").rglob("pytorch_model.bin")), "the same weights were fetched twice"
    assert served.authorised, "the client's token was not used"


@pytest.mark.parametrize(
    ("identifier", "options"),
    [("modelscope:LLM-Research/absent", ()), ("modelscope:LLM-Research/tiny", ("--revision", "v9"))],
    ids=["model", "revision"],
)
def test_what_the_hub_has_not_is_one_clear_message(
    server: tuple[Server, str], tmp_path: Path, identifier: str, options: tuple[str, ...]
) -> None:
    done = get(server[1], tmp_path, identifier, *options)
    assert done.returncode == 2
    assert "ModelScope does not give this model" in done.stderr
    assert identifier in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_no_network_is_one_clear_message(tmp_path: Path) -> None:
    done = get("http://127.0.0.1:9", tmp_path, "modelscope:LLM-Research/tiny")
    assert done.returncode == 1
    assert "the hub cannot be reached" in done.stderr
    assert "modelscope:LLM-Research/tiny" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_without_the_client_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "modelscope", None)  # what Python does for a package that is not installed
    with pytest.raises(UserError, match="not installed") as refused:
        hub.fetch("modelscope:LLM-Research/tiny")
    assert "pip install modelscope" in str(refused.value)
