"""What an untouched model gives for a batch, read once for all cells of a run and charged to each as if it had read it.

In its last bits a text's features depend on what it is batched and padded with. So whole batches are kept, found by
their content, and what is taken from the shelf is bit-identical to what reading would have given.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from bench import identity
from bench.budget import Meter
from bench.config.schema import Template
from bench.measure import lent
from bench.measure.book import Book, Flops
from bench.measure.flops import counting_part
from bench.measure.lent import Cost, Peaks
from bench.score.adapted import Adapted, scored
from bench.score.batch import Batch, Encoded
from bench.score.heads import HeadReader

VERSION = 1
"""Raised when a change of ours changes what is kept."""
SUM_BYTES = 32
"""Of the checksum in front of every file (SHA-256)."""


def folder_of(shared: str, model_fingerprint: str, precision: str, device: str) -> Path:
    """The part of a run's folder for cells whose features of one batch are the same in every bit."""
    versions = [torch.__version__, transformers.__version__, VERSION]
    what = [model_fingerprint, precision, device, torch.get_num_threads(), versions]
    return Path(shared) / identity.digest(what, 16)


@dataclass(frozen=True)
class Kept:
    """Features of a batch, (rows, width) in the model's own type, and what reading them cost."""

    features: torch.Tensor
    cost: Cost
    peaks: Peaks
    """Of the phase in which they were read, up to then; empty: memory was not measured."""


@dataclass
class Shelf:
    """Features by batch: those of `folder`, and where it has none the model's."""

    folder: Path | None
    """None: everything is read by the model."""
    book: Book = field(default_factory=Book)
    """FLOPs of the model alone by shape."""

    def features(self, reader: HeadReader, module: nn.Module, batch: Batch, meter: Meter) -> torch.Tensor:
        """Pooled hidden states (items, width) on the batch's device, inside a step of `meter`, which is charged with
        the forward whether it is run or not. A rehearsal touches no file."""
        if self.folder is None or meter.rehearses:
            return reader.features(module, batch)
        begun, phase = time.perf_counter(), lent.now()
        path = self.folder / f"{key(reader, module, batch)}.features"
        kept = read(path)
        if kept is None or (phase is not None and not kept.peaks):
            charge(meter, phase, time.perf_counter() - begun)
            kept = self.forward(reader, module, batch, phase)
            begun = time.perf_counter()
            write(path, kept)
            charge(meter, phase, time.perf_counter() - begun)
            return kept.features
        self.book.add(batch.shape, Flops(kept.cost.flops, kept.cost.attention))
        features = kept.features.to(reader.device)
        if phase is not None:
            phase.take(kept.cost, kept.peaks)
        charge(meter, phase, time.perf_counter() - begun, kept.cost)
        return features

    def forward(self, reader: HeadReader, module: nn.Module, batch: Batch, phase: lent.Lent | None) -> Kept:
        """The model reads a batch."""
        known, begun = self.book.get(batch.shape), time.perf_counter()
        counted = known is None
        if known is None:
            with counting_part() as count:
                features = reader.features(module, batch)
            known = count.once
            self.book.add(batch.shape, known)
        else:
            features = reader.features(module, batch)
        if reader.device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - begun
        rows, length = batch.inputs["input_ids"].shape
        cost = Cost(seconds, batch.tokens, rows * length, rows, known.total, known.attention, counted)
        return Kept(features, cost, {} if phase is None else phase.peaks())


def charge(meter: Meter, phase: lent.Lent | None, spent: float, cost: Cost | None = None) -> None:
    """`spent` seconds of looking up and keeping are nobody's work; `cost` is that of a forward that was not run."""
    meter.lend(cost, spent)
    if phase is not None:
        phase.ahead -= spent


def key(reader: HeadReader, module: nn.Module, batch: Batch) -> str:
    """Digest of a batch's content, of how hidden states become one vector, and of the attention that runs."""
    total = hashlib.sha256()
    attention = getattr(getattr(module, "config", None), "_attn_implementation", None)
    total.update(f"{reader.how} {attention} {batch.padded}".encode())
    for name, tensor in sorted({**batch.inputs, "lengths": batch.lengths}.items()):
        total.update(f"\0{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        total.update(tensor.cpu().numpy().tobytes())
    return total.hexdigest()


def write(path: Path, kept: Kept) -> None:
    """Keep features, whole or not at all; a disk that cannot take them is no fault of the cell's."""
    told = json.dumps({"cost": asdict(kept.cost), "peaks": kept.peaks}).encode()
    body = told + b"\n" + save({"features": kept.features.cpu().contiguous()})
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as out:
                out.write(hashlib.sha256(body).digest() + body)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def read(path: Path) -> Kept | None:
    """What is kept under a path; None where there is nothing, or not in every byte what was written."""
    try:
        whole = path.read_bytes()
    except OSError:
        return None
    body = whole[SUM_BYTES:]
    if hashlib.sha256(body).digest() != whole[:SUM_BYTES]:
        return None
    told, _, tensors = body.partition(b"\n")
    try:
        fields = json.loads(told)
        return Kept(load(tensors)["features"], Cost(**fields["cost"]), fields["peaks"])
    except (ValueError, KeyError, TypeError, SafetensorError):
        return None  # a file of another layout


@dataclass
class OnFeatures(Adapted):
    """A head on the features of a model that nothing has touched."""

    shelf: Shelf

    def predict(self, fields: Sequence[dict[str, str]], meter: Meter) -> np.ndarray:
        """As any adapted model's."""
        self.module.eval()
        reader = self.reader
        assert isinstance(reader, HeadReader)

        def collate(part: Sequence[Encoded]) -> tuple[Batch, tuple[Any, ...]]:
            batch = reader.collate(part)
            return batch, batch.shape

        def score(batch: Batch) -> torch.Tensor:
            return reader.answers(self.shelf.features(reader, self.module, batch, meter))

        return scored(reader.encode(fields), meter, collate, score)

    def through(self, template: Template) -> OnFeatures:
        """The same head on what the model gives for another prompt."""
        return OnFeatures(self.module, self.reader.through(template), self.shelf)
