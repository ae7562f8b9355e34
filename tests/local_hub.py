"""A small server that speaks the endpoints of Hugging Face's hub, for tests that use the hub's real client."""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

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


@contextmanager
def serving(hub: Hub) -> Iterator[str]:
    """The address at which `hub` is served."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def variables(address: str, home: Path) -> dict[str, str]:
    """The environment of a command whose hub is at `address` and whose cache is `home`; no token."""
    inherited = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    inherited.pop("HF_TOKEN", None)
    return inherited | {"HF_ENDPOINT": address, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "*"}
