"""Files of data sets on the Hugging Face hub: in its cache, over the network, or told in words why not.

The environment is read at each call and handed on (huggingface_hub itself reads it once, at import).
"""

from __future__ import annotations

import base64
import functools
import os
import re
import socket
import threading
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bench.config.schema import DataRef
from bench.data.wording import listing
from bench.errors import UserFault

CONNECT_SECONDS = 2.0  # while choosing a source: the sample is the alternative
PATIENT_SECONDS = 10.0  # once the hub is chosen
COMMIT = re.compile(r"[0-9a-f]{40}")
SHARD = r"(?:-(?P<number>\d+)(?:-of-(?P<total>\d+))?(?:-[0-9a-f]{16})?)?\.parquet"
Files = dict[str, tuple[Path, ...]]


def endpoint() -> str:
    """The hub's address: HF_ENDPOINT, else https://huggingface.co."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def offline() -> bool:
    """Whether the user forbade connecting (HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE, as huggingface_hub reads them)."""
    value = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return value.upper() in {"1", "ON", "YES", "TRUE"}


def cache_folder() -> Path:
    """Where huggingface_hub keeps its downloads, found as it finds it but without the half second of importing it."""
    env = os.environ
    home = env.get("HF_HOME") or os.path.join(env.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    folder = env.get("HF_HUB_CACHE") or env.get("HUGGINGFACE_HUB_CACHE") or os.path.join(home, "hub")
    return Path(os.path.expandvars(os.path.expanduser(folder)))


def reachable(address: str, seconds: float | None = None) -> bool:
    """Whether something listens at the address, asked once a process for at most `seconds`; False when offline.

    The environment's proxy is used where one is set for this address.
    """
    return not offline() and _reachable(address, CONNECT_SECONDS if seconds is None else seconds)


@functools.cache
def _reachable(address: str, seconds: float) -> bool:
    answer: list[bool] = []
    # Looking up a name has no timeout of its own, so the whole attempt runs in a thread that may be left behind.
    thread = threading.Thread(target=lambda: answer.append(_connects(address, seconds)), daemon=True)
    thread.start()
    thread.join(seconds)
    return bool(answer and answer[0])


def _connects(address: str, seconds: float) -> bool:
    from http.client import HTTPConnection, HTTPException
    from urllib.request import getproxies, proxy_bypass

    try:
        url = urlsplit(address)
        port = url.port or (443 if url.scheme == "https" else 80)
        proxies = getproxies()
        proxy = proxies.get(url.scheme) or proxies.get("all")
        if not proxy or proxy_bypass(url.hostname or ""):
            socket.create_connection((url.hostname, port), timeout=seconds).close()
            return True
        via = urlsplit(proxy if "//" in proxy else f"//{proxy}")
        connection = HTTPConnection(via.hostname or "", via.port or 80, timeout=seconds)
        # A proxy that answers but refuses to tunnel does not reach the hub. Other kinds (SOCKS) are only connected to.
        if url.scheme == "https" and via.scheme in ("http", ""):
            connection.set_tunnel(url.hostname or "", port, _credentials(via.username, via.password))
        connection.connect()
        connection.close()
        return True
    except (OSError, ValueError, HTTPException):  # no name, no route, refused, timed out, malformed address
        return False


def _credentials(user: str | None, password: str | None) -> dict[str, str]:
    if user is None:
        return {}
    pair = f"{unquote(user)}:{unquote(password or '')}".encode()
    return {"Proxy-Authorization": "Basic " + base64.b64encode(pair).decode()}


def folders(config: str | None) -> tuple[str, ...]:
    """Where a repository keeps a configuration's files, in order of preference (each empty or ending in `/`)."""
    return ("data/", "", "default/") if config in (None, "default") else (f"{config}/",)


def pinned(name: str, data: DataRef) -> str:
    """The task's commit; UserFault where it names none, because the hub's rows could change between runs."""
    if data.revision is None or not COMMIT.fullmatch(data.revision):
        got = f"'{data.revision}'" if data.revision else "none"
        raise UserFault(
            f"task '{name}': reading {data.hub} from the hub needs data.revision, got {got}; "
            "allowed: a commit (40 hex digits)"
        )
    return data.revision


def cached(data: DataRef, splits: Iterable[str]) -> Files | None:
    """The files of all `splits` from the hub's cache, or None where one is not there in full."""
    if data.hub is None or data.revision is None or not COMMIT.fullmatch(data.revision):
        return None
    storage = cache_folder() / f"datasets--{data.hub.replace('/', '--')}" / "snapshots" / data.revision
    return find(storage, data.config, splits) if storage.is_dir() else None


def find(root: Path, config: str | None, splits: Iterable[str]) -> Files | None:
    """split -> its parquet shards in order, under the first folder that holds them all; None where one is missing."""
    found: Files = {}
    for split in splits:
        candidates = (_shards(root / folder, split) for folder in folders(config))
        files = next((shards for shards in candidates if shards), None)
        if files is None:
            return None
        found[split] = files
    return found


def _shards(folder: Path, split: str) -> tuple[Path, ...]:
    """The split's files in this folder, or nothing where a shard of `-of-N` is missing (an interrupted download)."""
    if not folder.is_dir():
        return ()
    name = re.compile(re.escape(split) + SHARD)
    found = [(match, path) for path in folder.iterdir() if (match := name.fullmatch(path.name)) and path.is_file()]
    if any(match["total"] and int(match["total"]) != len(found) for match, _ in found):
        return ()
    return tuple(path for _, path in sorted(found, key=lambda pair: (int(pair[0]["number"] or 0), pair[1].name)))


def download(name: str, data: DataRef, splits: Iterable[str]) -> Files:
    """The files of all `splits`: from the cache where they lie there, else over the network into it.

    Raises:
        UserFault: no pinned commit, offline and not cached, no such data set or files, or the download failed.
    """
    revision = pinned(name, data)
    splits = list(splits)
    found = cached(data, splits)
    if found is not None:
        return found
    what = f"{data.hub} at {revision[:8]}"
    _may_fetch(name, what)
    patterns = [f + s + end for f in folders(data.config) for s in splits for end in ("-*.parquet", ".parquet")]
    from huggingface_hub import snapshot_download

    try:
        root = snapshot_download(
            data.hub or "", repo_type="dataset", revision=revision, allow_patterns=patterns,
            endpoint=endpoint(), cache_dir=cache_folder(),
        )  # fmt: skip
    except Exception as error:  # the HTTP library below, and so its exceptions, differs between versions
        first = (str(error).strip() or "no message").splitlines()[0]
        why = f"{type(error).__name__}: {first}"
        raise UserFault(f"task '{name}': cannot fetch {what} from {endpoint()}: {why}") from error
    found = find(Path(root), data.config, splits)
    if found is None:
        raise _no_files(name, data, what, splits)
    return found


def _may_fetch(name: str, what: str) -> None:
    if offline():
        raise UserFault(
            f"task '{name}': {what} is not in the cache {cache_folder()} and HF_HUB_OFFLINE forbids fetching it; "
            "allowed: unset it, or data.source=mirror or sample"
        )
    if not reachable(endpoint(), PATIENT_SECONDS):  # the client itself tries again for 23 s before it says so
        raise UserFault(
            f"task '{name}': {what} is not in the cache {cache_folder()} and {endpoint()} does not answer; "
            "allowed: data.source=mirror or sample, or HF_ENDPOINT"
        )


def _no_files(name: str, data: DataRef, what: str, splits: list[str]) -> UserFault:
    from huggingface_hub import HfApi

    try:
        files = HfApi(endpoint=endpoint()).list_repo_files(data.hub or "", repo_type="dataset", revision=data.revision)
    except Exception as error:  # the snapshot was a partial one from the cache, returned because nothing answered
        why = f"{endpoint()} cannot be asked for the rest: {type(error).__name__}"
        return UserFault(f"task '{name}': {what} is only partly in the cache {cache_folder()}, and {why}")
    there = sorted(file for file in files if file.endswith(".parquet"))
    absent = [split for split in splits if cached(data, [split]) is None]
    wanted = [f"{folders(data.config)[0]}{split}-*.parquet" for split in absent]
    return UserFault(
        f"task '{name}': {what} lacks {', '.join(wanted)}; parquet files there: {listing(there, wanted[0])}"
    )
