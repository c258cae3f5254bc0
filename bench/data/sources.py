"""Which source serves a run, and the files of a task in it (DESIGN 7)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import bench
from bench.config.data import Splits
from bench.config.schema import Task
from bench.config.settings import DataSettings
from bench.data import hub
from bench.data.arithmetic import VERSION
from bench.data.harness import files_of
from bench.data.splits import parse
from bench.data.wording import listing
from bench.errors import UserFault

ENDINGS = (".parquet", ".jsonl", ".csv")
PAIRS = ":pairs"
"""Stands among a task's files for the other wordings of its test rows: no split's name, for it holds a colon."""


HELD_OUT = ":held out:"
"""Stands, with a number, for the texts that no training row may hold."""


@dataclass(frozen=True)
class Located:
    """A task's files: `source` (mirror, hub, sample, path, lm_eval or what `Task.data.made` says), split base name ->
    its files in order (and those of other wordings under `PAIRS`, held-out texts under `HELD_OUT`), digest.

    In a sample every split lies in the same file, its rows told apart by their `split` key. `fingerprint` is
    `sha256:<hex>` over the split names and the bytes of the needed files.
    """

    source: str
    files: dict[str, tuple[Path, ...]]
    fingerprint: str
    wordings: str | None = None
    """The fingerprint of the file under `PAIRS`; None where there is none."""


def samples_folder() -> Path:
    """The folder of bundled samples: `bench/_suites/samples` in a wheel, else `suites/samples` beside `bench/`."""
    package = Path(bench.__file__).resolve().parent
    wheel = package / "_suites" / "samples"
    return wheel if wheel.is_dir() else package.parent / "suites" / "samples"


def mirror_folder(settings: DataSettings) -> Path | None:
    """The mirror named by data.mirror or else BENCH_MIRROR, or None. It need not exist."""
    named = settings.mirror or os.environ.get("BENCH_MIRROR")
    return Path(named).expanduser() if named else None


def choose_source(tasks: dict[str, Task], settings: DataSettings) -> str:
    """The one source for all tasks of a run: `mirror`, `hub`, `sample`, or `path` where every task is its own.

    Auto takes the mirror if one is named, else the hub if every task is cached or its address answers, else the sample.

    Raises:
        UserFault: a task that the source cannot serve, a mirror that is not named or not there, or nothing left to try.
    """
    foreign = {name: task for name, task in tasks.items() if not task.data.own}
    if not foreign:
        return "path"
    source = settings.source
    if source == "auto" and (settings.mirror or (mirror_folder(settings) and _all_name_hub(foreign))):
        source = "mirror"
    if source == "auto":
        return _hub_or_sample(foreign)
    _require(foreign, source)
    if source == "mirror":
        _existing_mirror(settings)
    if source == "hub":
        for name, task in foreign.items():
            hub.pinned(name, task.data)
    return source


def _hub_or_sample(tasks: dict[str, Task]) -> str:
    """Auto without a mirror. All cached needs no network, so the address is asked only when something is missing."""
    strangers = [name for name, task in tasks.items() if task.data.hub is None]
    absent = [name for name, task in tasks.items() if hub.cached(task.data, needed(task)) is None]
    if not absent:
        return "hub"
    if not strangers and hub.reachable(hub.endpoint()):
        for name, task in tasks.items():
            hub.pinned(name, task.data)
        return "hub"
    unserved = [name for name, task in tasks.items() if task.data.sample is None]
    if not unserved:
        return "sample"
    if strangers:
        tried = f"hub (not named by {_names(strangers)})"
    else:
        state = "offline by HF_HUB_OFFLINE" if hub.offline() else f"{hub.endpoint()} does not answer"
        tried = f"hub ({state}; not in the cache {hub.cache_folder()}: {_names(absent)})"
    raise UserFault(
        f"no source serves every task; tried: mirror (not named), {tried}, sample (none for {_names(unserved)}); "
        "allowed: data.mirror=DIR or BENCH_MIRROR, a reachable or cached hub, or a task's own data.path"
    )


def _all_name_hub(tasks: dict[str, Task]) -> bool:
    """Whether a mirror could serve them: one from the environment is no order; a suite of samples stays one."""
    return all(task.data.hub is not None for task in tasks.values())


def _require(tasks: dict[str, Task], source: str) -> None:
    """Every task must name what this source reads."""
    key = "sample" if source == "sample" else "hub"
    lacking = [name for name, task in tasks.items() if getattr(task.data, key) is None]
    if lacking:
        others = [s for s in ("mirror", "hub", "sample") if (s == "sample") != (key == "sample")]
        raise UserFault(
            f"data.source={source} needs data.{key}, which {_names(lacking)} does not have; "
            f"allowed: add it, leave the task out, or data.source={'|'.join(others)}"
        )


def _names(tasks: Iterable[str]) -> str:
    return "task " + ", ".join(f"'{name}'" for name in tasks)


def needed(task: Task) -> list[str]:
    """Base names of the splits a task reads, sorted, each once."""
    return sorted({parse(task.splits.train).base, parse(task.splits.test).base})


def locate(name: str, task: Task, source: str, settings: DataSettings) -> Located:
    """The files of a task in the run's source (its own folder where it has a `path`) and their fingerprint.

    Raises:
        UserFault: a file that is not there (named, with what is), or a download that failed.
    """
    if task.data.random is not None:
        return Located("random", {}, f"random:{task.data.random}:v2")
    if task.data.arithmetic is not None:
        return Located("arithmetic", {}, f"arithmetic:{task.data.arithmetic}:v{VERSION}")
    splits = needed(task)
    held_out = _held_out(name, task, source, settings)
    if task.data.path is not None:
        source, files = "path", _own(name, Path(task.data.path).expanduser(), splits)
    elif task.continued:
        source, files = "lm_eval", files_of(name, task, splits, settings)
    else:
        _require({name: task}, source)
        if source == "mirror":
            files = _mirrored(name, task, splits, settings)
        elif source == "hub":
            files = hub.download(name, task.data, splits)
        else:
            files = _sampled(name, task, splits)
    pairs = _pairs(name, task, source, settings)
    files |= held_out  # which rows are dropped, and so what is trained on, follows from them
    return Located(source, files | pairs, fingerprint(files), fingerprint(pairs) if pairs else None)


def _held_out(name: str, task: Task, source: str, settings: DataSettings) -> dict[str, tuple[Path, ...]]:
    """The files of `Task.drop_overlap`, from the run's source; those that the sample has nothing for are left out.

    A run of users' own folders has no source: then the mirror where one is named, else the hub.
    """
    if source == "path":
        source = "mirror" if mirror_folder(settings) else "hub"
    found: dict[str, tuple[Path, ...]] = {}
    for number, one in enumerate(task.drop_overlap or ()):
        if source == "sample" and one.data.sample is None and not one.data.own:
            continue
        splits = Splits(train=one.split, test=one.split)
        other = task.model_copy(update={"data": one.data, "splits": splits, "pairs": None, "drop_overlap": None})
        found[f"{HELD_OUT}{number}"] = locate(f"{name}.drop_overlap", other, source, settings).files[one.split]
    return found


def _pairs(name: str, task: Task, source: str, settings: DataSettings) -> dict[str, tuple[Path, ...]]:
    """The file of other wordings, which no cell trains on and no fingerprint needs. The sample has none."""
    pairs = task.pairs
    if pairs is None or (source == "sample" and not pairs.data.own):
        return {}
    splits = Splits(train=pairs.split, test=pairs.split)
    other = task.model_copy(update={"data": pairs.data, "splits": splits, "pairs": None})
    return {PAIRS: locate(f"{name}.pairs", other, source, settings).files[pairs.split]}


def fingerprint(files: dict[str, tuple[Path, ...]]) -> str:
    """`sha256:<hex>` over split names and file bytes, splits sorted, lengths fixed so no two inputs run together.

    Raises:
        UserFault: a file that cannot be read.
    """
    total = hashlib.sha256()
    digests: dict[Path, bytes] = {}
    for split in sorted(files):
        total.update(hashlib.sha256(split.encode()).digest() + len(files[split]).to_bytes(8, "big"))
        for path in files[split]:
            if path not in digests:  # a sample's splits lie in one file
                try:
                    with path.open("rb") as stream:
                        digests[path] = hashlib.file_digest(stream, "sha256").digest()
                except OSError as error:
                    raise UserFault(f"cannot read {path}: {error.strerror or error}") from error
            total.update(digests[path])
    return "sha256:" + total.hexdigest()


def _existing_mirror(settings: DataSettings) -> Path:
    folder = mirror_folder(settings)
    if folder is None:
        raise UserFault("data.source=mirror, but no mirror is named; allowed: data.mirror=DIR or BENCH_MIRROR=DIR")
    if not folder.is_dir():
        origin = "data.mirror" if settings.mirror else "BENCH_MIRROR"
        raise UserFault(
            f"the mirror '{folder}' named by {origin} is not a folder; allowed: one with <org>/<name>/<config>/"
        )
    return folder


def _mirrored(name: str, task: Task, splits: list[str], settings: DataSettings) -> dict[str, tuple[Path, ...]]:
    folder = _existing_mirror(settings) / (task.data.hub or "") / (task.data.config or "default")
    files: dict[str, tuple[Path, ...]] = {}
    for split in splits:
        path = folder / f"{split}.parquet"
        if not path.is_file():
            raise _missing(f"task '{name}': the mirror lacks {path}", path, split)
        files[split] = (path,)
    return files


def _missing(what: str, path: Path, split: str) -> UserFault:
    """Names what lies beside the missing file, or in the deepest folder that exists where its folder is missing too."""
    if path.parent.is_dir():
        there = sorted({p.stem for p in path.parent.iterdir() if p.suffix in ENDINGS})
        kind, wanted = "splits there", split
    else:
        above = next(folder for folder in path.parents if folder.is_dir())
        wanted = path.relative_to(above).parts[0]
        there, kind = sorted(p.name for p in above.iterdir() if p.is_dir()), f"{above} holds"
    return UserFault(f"{what}; {kind}: {listing(there, wanted)}")


def _sampled(name: str, task: Task, splits: list[str]) -> dict[str, tuple[Path, ...]]:
    folder = samples_folder()
    path = folder / (task.data.sample or "")
    if not path.is_file():
        there = sorted(p.name for p in folder.glob("*.jsonl"))
        raise UserFault(f"task '{name}': no bundled sample {path}; samples there: {listing(there, path.name)}")
    return dict.fromkeys(splits, (path,))


def _own(name: str, folder: Path, splits: list[str]) -> dict[str, tuple[Path, ...]]:
    allowed = "|".join(ENDINGS)
    if not folder.is_dir():
        raise UserFault(f"task '{name}': data.path '{folder}' is not a folder; allowed: a folder with <split>{allowed}")
    files: dict[str, tuple[Path, ...]] = {}
    for split in splits:
        found = [path for ending in ENDINGS if (path := folder / f"{split}{ending}").is_file()]
        if not found:
            raise _missing(f"task '{name}': no {split}{allowed} in {folder}", folder / split, split)
        if len(found) > 1:
            both = ", ".join(path.name for path in found)
            raise UserFault(
                f"task '{name}': {folder} holds split '{split}' more than once ({both}); allowed: one of them"
            )
        files[split] = tuple(found)
    return files
