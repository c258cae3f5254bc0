"""A hub on 127.0.0.1 with the routes that fetching a model needs: describe a commit, list it, ask for a file, send it."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FakeHub:
    """`repos` is {"org/name": {commit: {file: bytes}}}; `gated` names repositories that answer 403. A context manager.

    `sent` lists the files whose bytes went out, `asked` every request's path.
    """

    def __init__(self, repos: dict[str, dict[str, dict[str, bytes]]], gated: tuple[str, ...] = ()) -> None:
        self.repos, self.gated = repos, gated
        self.sent: list[str] = []
        self.asked: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> FakeHub:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def find(self, name: str, commit: str) -> tuple[dict[str, bytes], str | None]:
        """Files of a commit, and the hub's error code where there are none to have."""
        if name in self.gated:
            return {}, "GatedRepo"
        if name not in self.repos:
            return {}, "RepoNotFound"
        if commit not in self.repos[name]:
            return {}, "RevisionNotFound"
        return self.repos[name][commit], None


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            """Silent."""

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            hub.asked.append(path)
            if path.startswith("/api/models/"):
                asked = path.removeprefix("/api/models/")
                tree = "/tree/" in asked
                name, _, commit = asked.partition("/tree/" if tree else "/revision/")
                files, error = hub.find(name, commit)
                rows = [{"type": "file", "path": p, "size": len(b), "oid": _oid(b)} for p, b in files.items()]
                info = {"id": name, "sha": commit, "siblings": [{"rfilename": p} for p in files]}
                return self.answer(json.dumps(rows if tree else info).encode(), error, {})
            name, _, rest = path.removeprefix("/").partition("/resolve/")
            commit, _, file = rest.partition("/")
            files, error = hub.find(name, commit)
            if error is None and file not in files:
                error = "EntryNotFound"
            body = files.get(file, b"")
            if self.command == "GET" and error is None:
                hub.sent.append(file)
            return self.answer(body, error, {"ETag": f'"{_oid(body)}"', "X-Repo-Commit": commit})

        def answer(self, body: bytes, error: str | None, headers: dict[str, str]) -> None:
            self.send_response(200 if error is None else 403 if error == "GatedRepo" else 404)
            if error is not None:
                headers, body = {"X-Error-Code": error, "X-Error-Message": error}, b""
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

    return Handler


def _oid(body: bytes) -> str:
    return hashlib.sha1(body).hexdigest()
