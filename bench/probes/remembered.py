"""What the base says of an item does not depend on the cell that is probed: it is asked once and remembered.

Five doses over five splits of one pool ask one base about the same items. Files hold digests of texts and scores, never
a text, and belong to one model, prompt, precision and version of our code.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from bench import identity
from bench.budget import Meter
from bench.config.schema import Template
from bench.job import Job
from bench.models.cache import cache_dir
from bench.store import write_atomically
from bench.strategy import Answerer


def folder_of(job: Job, labels: Sequence[str]) -> Path:
    """Where answers of this job's base are kept: by all that can change them but the prompt, which names the file."""
    cell = job.cell
    made_by = [cell.model_fingerprint, cell.readout, cell.precision, cell.device, cell.sequence, labels]
    return cache_dir() / "answers" / identity.digest([made_by, identity.NUMERICS, identity.code_digest()], 24)


@dataclass
class Base:
    """The base, built when it is first needed."""

    make: Callable[[], Answerer]

    @cached_property
    def answer(self) -> Answerer:
        """The base as it answers."""
        return self.make()


@dataclass(frozen=True)
class Remembered:
    """An `Answerer` that asks the base only about items it has not been asked about before, in this prompt."""

    base: Base
    folder: Path
    template: Template

    @property
    def truncated(self) -> int:
        """Inputs that lost their front are counted where they are scored: by the cell itself."""
        return 0

    @property
    def file(self) -> Path:
        """Digest of an item's texts -> its label scores."""
        return self.folder / f"{identity.digest(self.template.model_dump(mode='json'), 24)}.json"

    def through(self, template: Template) -> Remembered:
        """The same base asked through another prompt."""
        return replace(self, template=template)

    def predict(self, fields: Sequence[dict[str, str]], meter: Meter) -> np.ndarray:
        """Float64 scores (rows, labels) in the order given."""
        known = self.known()
        # to the letter: rows that read the same but for case are other questions (a perturbation asks just that)
        keys = [identity.digest(["exact", *one.values()]) for one in fields]
        missing = {key: one for key, one in zip(keys, fields, strict=True) if key not in known}
        if missing:
            scores = self.base.answer.through(self.template).predict(list(missing.values()), meter)
            known |= dict(zip(missing, scores.tolist(), strict=True))
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self.file, json.dumps(known))
        return np.asarray([known[key] for key in keys], dtype=float)

    def known(self) -> dict[str, list[float]]:
        """What was asked before; nothing where the file is not there or damaged."""
        try:
            found = json.loads(self.file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}
