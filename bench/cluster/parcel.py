"""What travels to a node and back: files by content, found again by their SHA-256, so that no folder need be shared."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from bench.job import Job
from bench.models.catalog import parse
from bench.records import Record
from bench.store import probe_file

Content = np.ndarray
"""The bytes of a file as uint8: Ray hands such an array to every process of a node without copying it."""


class Plugins(Record):
    """A user's folder of strategy files."""

    name: str
    """The folder's own name, which records tell."""
    files: dict[str, str]
    """Path below the folder -> SHA-256."""


class Parcel(Record):
    """An order with all that it needs of the machine that the command runs on."""

    number: int
    job: Job
    cell_seconds: float
    data: dict[str, str] = Field(default_factory=dict)
    """Path of a data file, as the job has it -> SHA-256."""
    plugins: Plugins | None = None
    cell: dict[str, str] = Field(default_factory=dict)
    """What a finished cell has stored, for a probe of it: path below its folder -> SHA-256."""

    @property
    def needed(self) -> list[str]:
        """Every content once, in an order that both sides know."""
        files = [self.data, self.cell, self.plugins.files if self.plugins else {}]
        return sorted({sha256 for some in files for sha256 in some.values()})


class Packer:
    """Makes parcels; a content that several orders need is handed to Ray once, what a cell has stored once for all of
    its probes that follow each other."""

    def __init__(self, put: Callable[[Content], Any], cell_seconds: float) -> None:
        self.put, self.cell_seconds = put, cell_seconds
        self.digests: dict[str, str] = {}
        self.references: dict[str, Any] = {}
        self.folder: Path | None = None
        self.stored: dict[str, Any] = {}
        """References to what the cell in `folder` has stored."""

    def pack(self, number: int, job: Job) -> tuple[Parcel, list[Any]]:
        """The parcel of an order, and references to the contents it needs. Raises `OSError` for an unreadable file."""
        folder = Path(job.folder)
        if folder != self.folder:  # Ray may forget what another cell has stored once its probes are answered
            self.folder, self.stored = folder, {}
        stored = [folder / "result.json", *below(folder / "adapted", "*")] if job.probe else []
        parcel = Parcel(
            number=number,
            job=standing(job),
            cell_seconds=self.cell_seconds,
            data={path: self.digest(Path(path)) for path in dict.fromkeys(data_files(job))},
            plugins=None if job.adapters_path is None else self.plugins(Path(job.adapters_path)),
            cell={path.relative_to(folder).as_posix(): self.given(path, self.stored) for path in stored},
        )
        known = self.stored | self.references
        return parcel, [known[sha256] for sha256 in parcel.needed]

    def plugins(self, folder: Path) -> Plugins:
        """Every Python file below the folder: strategies and their helpers."""
        files = {path.relative_to(folder).as_posix(): self.digest(path) for path in below(folder, "*.py")}
        return Plugins(name=folder.name, files=files)

    def digest(self, path: Path) -> str:
        """The SHA-256 of a file that is read once a run; its content is then with Ray."""
        if str(path) not in self.digests:
            self.digests[str(path)] = self.given(path, self.references)
        return self.digests[str(path)]

    def given(self, path: Path, references: dict[str, Any]) -> str:
        """The SHA-256 of a file; its content is then with Ray, and `references` has what Ray gave for it."""
        content = np.fromfile(path, dtype=np.uint8)
        sha256 = sha256_of(content)
        if sha256 not in references:
            references[sha256] = self.put(content)
        return sha256


def sha256_of(content: Content) -> str:
    """Hexadecimal SHA-256 of the bytes."""
    return hashlib.sha256(content.data).hexdigest()


def below(folder: Path, pattern: str) -> list[Path]:
    """Files of a folder and those below it, hidden ones and what Python compiled left out."""
    found = [path for path in sorted(folder.rglob(pattern)) if path.is_file()]
    parts = [path.relative_to(folder).parts for path in found]
    return [
        path
        for path, names in zip(found, parts, strict=True)
        if "__pycache__" not in names and not any(name.startswith(".") for name in names)
    ]


def standing(job: Job) -> Job:
    """The order as another machine reads it: a model's folder from the root, and no folder of shared features."""
    ref = parse(job.model)
    return job.model_copy(update={"features": None} | ({"model": f"path:{ref.name}"} if ref.form == "path" else {}))


def data_files(job: Job) -> Iterator[str]:
    """Paths of all data files an order reads."""
    for located in (job.located, *(source.located for source in (*job.sources, *job.others))):
        for paths in located["files"].values():
            yield from paths


def moved(job: Job, places: dict[str, str]) -> Job:
    """The order with its data files at other places."""

    def at(located: dict[str, Any]) -> dict[str, Any]:
        return located | {"files": {split: [places[p] for p in paths] for split, paths in located["files"].items()}}

    sources, others = (
        [source.model_copy(update={"located": at(source.located)}) for source in some]
        for some in (job.sources, job.others)
    )
    return job.model_copy(update={"located": at(job.located), "sources": sources, "others": others})


def record_name(job: Job) -> str:
    """The record an order ends with, below the cell's folder."""
    folder = Path(job.folder)
    return "result.json" if job.probe is None else probe_file(folder, job.probe).relative_to(folder).as_posix()


def gathered(job: Job) -> dict[str, Content]:
    """What an order left in its folder: path below it -> content."""
    folder = Path(job.folder)
    if job.probe is not None:
        found = below(folder / "probes", f"{job.probe}.*")
    else:
        own = [folder / name for name in ("result.json", "predictions.parquet", "log.txt")]
        found = [*(path for path in own if path.is_file()), *below(folder / "adapted", "*")]
    return {path.relative_to(folder).as_posix(): np.fromfile(path, dtype=np.uint8) for path in found}
