"""Models on the Hugging Face hub: a pinned commit, safetensors only, never remote code.

The hub client's own settings hold: HF_ENDPOINT, HF_HUB_OFFLINE, HF_HOME, HF_TOKEN.
"""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

from bench.errors import UserFault
from bench.models.catalog import ModelRef
from bench.models.folder import check_config, check_folder, refuse_without_safetensors, small_files, weight_files


def cached(ref: ModelRef) -> Path | None:
    """Folder of the commit in the hub's cache where the model is whole there, else None. Uses no network.

    Raises `UserFault` where what is there is refused (remote code).
    """
    from huggingface_hub import snapshot_download

    try:
        folder = Path(
            snapshot_download(ref.name, revision=ref.revision, local_files_only=True, allow_patterns="config.json")
        )
        names = [p.name for p in folder.iterdir()]
        if not weight_files(names):
            return None
        check_config(folder, ref.spec)
    except (OSError, ValueError):  # the client's "not in the cache" is both an OSError and a ValueError
        return None
    try:
        check_folder(folder, ref.spec)
    except UserFault:
        return None  # a shard is still missing: an earlier download was cut off
    return folder


def fetch(ref: ModelRef) -> Path:
    """Bring the model into the hub's cache and return its folder. A whole cached copy needs no network.

    Raises `UserFault`: hub unreachable, no such repository or commit, gated, pickles only, remote code.
    """
    if folder := cached(ref):
        return folder
    names = _list(ref)
    refuse_without_safetensors(names, ref.spec)
    # The small files come first: code of its own is refused before gigabytes are fetched, and weights that are
    # whole then mean that everything else is, too.
    check_config(_snapshot(ref, small_files(names)), ref.spec)
    folder = _snapshot(ref, weight_files(names))
    check_folder(folder, ref.spec)
    return folder


def _list(ref: ModelRef) -> list[str]:
    from huggingface_hub import HfApi

    try:
        # model_info, for it gives up at once where list_repo_files retries an unreachable hub for half a minute
        info = HfApi().model_info(ref.name, revision=ref.revision, timeout=20)
        return [sibling.rfilename for sibling in info.siblings or []]
    except Exception as error:  # which library's error it is depends on the hub client's version
        _fault(ref, error)


def _snapshot(ref: ModelRef, names: list[str]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(ref.name, revision=ref.revision, allow_patterns=names))
    except Exception as error:  # which library's error it is depends on the hub client's version
        _fault(ref, error)


def _fault(ref: ModelRef, error: Exception) -> NoReturn:
    from huggingface_hub import constants, errors

    what = f"model '{ref.spec}'"
    if isinstance(error, errors.GatedRepoError):
        raise UserFault(
            f"{what} is gated: accept its licence on {constants.ENDPOINT}/{ref.name} and set HF_TOKEN"
        ) from None
    if isinstance(error, errors.RevisionNotFoundError):
        raise UserFault(f"{what}: {ref.name} has no commit {ref.revision}") from None
    if isinstance(error, errors.RepositoryNotFoundError):
        raise UserFault(f"{what}: the hub has no repository {ref.name} (or it is private: set HF_TOKEN)") from None
    why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"{type(error).__name__} at {constants.ENDPOINT}"
    raise UserFault(
        f"{what} is not in the hub's cache and the hub cannot be reached ({why}); "
        "allowed without a hub: path:DIR or an alias of `list models`"
    ) from None
