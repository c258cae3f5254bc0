"""A stand-in for the hub's data sets on 127.0.0.1: just the calls that `snapshot_download` makes, and a log of them."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


class FakeHub:
    """`repos` maps (repo, commit) -> {path: bytes}; `log` holds `METHOD path` of each request."""

    def __init__(self, repos: dict[tuple[str, str], dict[str, bytes]]) -> None:
        self.repos, self.log = repos, []
        self.url = ""


def handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args):  # quiet
            pass

        def answer(self, status: int, body: bytes, **headers: str) -> None:
            self.send_response(status)
            for key, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(key.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_GET(self):
            path = unquote(urlsplit(self.path).path)
            hub.log.append(f"{self.command} {path}")
            if match := re.fullmatch(r"/api/datasets/(.+?)/(tree|revision)/([^/]+)", path):
                return self.listing(*match.groups())
            if match := re.fullmatch(r"/datasets/(.+?)/resolve/([^/]+)/(.+)", path):
                return self.file(*match.groups())
            return self.answer(404, b"{}")

        do_HEAD = do_GET

        def listing(self, repo: str, kind: str, commit: str) -> None:
            files = hub.repos.get((repo, commit))
            if files is None:
                known = any(repo == name for name, _ in hub.repos)
                return self.answer(404, b"{}", X_Error_Code="RevisionNotFound" if known else "RepoNotFound")
            if kind == "tree":
                body = [
                    {"type": "file", "path": p, "size": len(b), "oid": hashlib.sha1(b).hexdigest()}
                    for p, b in files.items()
                ]
            else:
                body = {"id": repo, "sha": commit, "siblings": [{"rfilename": p} for p in files]}
            return self.answer(200, json.dumps(body).encode(), Content_Type="application/json")

        def file(self, repo: str, commit: str, path: str) -> None:
            body = hub.repos.get((repo, commit), {}).get(path)
            if body is None:
                return self.answer(404, b"", X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
            return self.answer(200, body, X_Repo_Commit=commit, ETag=f'"{hashlib.sha1(body).hexdigest()}"')

    return Handler


@contextmanager
def serve(repos: dict[tuple[str, str], dict[str, bytes]]):
    """A running FakeHub; its `url` is the HF_ENDPOINT to use."""
    hub = FakeHub(repos)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(hub))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
