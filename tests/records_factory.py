"""Fake runs for tests of the report: a plan, records and predictions that hang together, from a seed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.identity import id_of
from bench.records import (
    CellInfo,
    DataInfo,
    Outcome,
    Parameters,
    Phase,
    PlanFile,
    Record,
    Result,
    Status,
    Training,
    Used,
)
from bench.stats.metrics import score
from bench.store import write_record

GIB = 1024**3
FINGERPRINT = "sha256:" + "7e" * 32
TASKS: dict[str, tuple[str, int, float, str, int]] = {
    # name -> metric, labels, share of the last label, skill needed (easy .. hopeless), test items
    "sst2": ("accuracy", 2, 0.51, "easy", 872),
    "cola": ("matthews", 2, 0.69, "hard", 1043),
    "mrpc": ("f1", 2, 0.68, "hard", 408),
    "rte": ("accuracy", 2, 0.47, "hopeless", 277),
    "agnews": ("accuracy", 4, 0.25, "easy", 600),
}
STRATEGIES: dict[str, tuple[str, bool, float, float, float, int]] = {
    # name -> family, seeded, skill, peak GiB, seconds, trainable
    "zero_shot": ("prompting", False, 0.66, 0.92, 0.0, 0),
    "few_shot": ("prompting", True, 0.72, 1.05, 0.02, 0),
    "frozen": ("feature extraction", True, 0.74, 0.95, 6.1, 1154),
    "bitfit": ("selective", True, 0.80, 1.35, 24.0, 51_456),
    "lora": ("reparametrisation", True, 0.88, 1.62, 33.5, 2_442_240),
    "dora": ("reparametrisation", True, 0.875, 1.71, 47.0, 2_580_000),
    "full": ("full fine-tuning", True, 0.87, 3.05, 51.0, 134_515_008),
}
EASE = {"easy": 1.0, "hard": 0.5, "hopeless": 0.0}
REASONS = {
    Status.out_of_memory: "Adapting needed 16.4 GiB where 15.0 GiB are allowed; lower batch or sequence, or choose qlora.",
    Status.unsupported: "Llama-style models have no bias terms; set create=true to add zero biases.",
    Status.diverged: "The loss became NaN at step 12 of 32; lower the learning rate (5e-3).",
    Status.timeout: "The cell ran longer than run.cell_seconds=3600.",
    Status.error: "RuntimeError: mat1 and mat2 shapes cannot be multiplied (8x576 and 384x2); see log.txt.",
    Status.interrupted: "Interrupted by Ctrl-C; run again to resume.",
}


@dataclass
class Fake:
    """What a fake run holds. `edit` may change any record before it is written."""

    name: str = "glue-small"
    tasks: Sequence[str] = ("sst2", "cola", "mrpc", "rte")
    strategies: Sequence[str] = tuple(STRATEGIES)
    seeds: Sequence[int] = (0,)
    models: Sequence[str] = ("smollm2-135m-instruct",)
    source: str = "mirror"
    skill: float = 1.0
    """Multiplies every strategy's skill; 0 makes every answer a coin toss on the label shares."""
    items: int | None = None
    groups: Mapping[str, str] = field(default_factory=dict)
    """Strategy -> the group it stands in apart."""
    statuses: Mapping[tuple[str, str, int], Status] = field(default_factory=dict)
    """(task, strategy, seed) -> how the cell ended, where not ok."""
    missing: Sequence[tuple[str, str, int]] = ()
    """Cells planned and never run."""
    edit: Callable[[Result], Result] | None = None
    cuda: bool = False
    code_digest: str = "digest-now"
    description: str = "Four GLUE tasks, 128 labels each."
    hashed: bool = False
    """Whether the ids of its cells are those that their fields give, as in a real run."""
    sealed: bool = False
    """Whether plan and records hold the hash of their content, as those of a real run; older ones, which a test may edit,
    have none."""


def write_run(root: Path, fake: Fake) -> Path:
    """Write the run below `root` and return its folder."""
    run_dir, infos = root / fake.name, []
    run_dir.mkdir(parents=True)
    for model in fake.models:
        for task in fake.tasks:
            labels = _labels(task, fake)
            for strategy in fake.strategies:
                for seed in fake.seeds if STRATEGIES.get(strategy, ("", True))[1] else fake.seeds[:1]:
                    info = cell(fake, model, task, strategy, seed)
                    infos.append(info)
                    if (task, strategy, seed) not in fake.missing:
                        _write_cell(run_dir / info.id, fake, info, labels)
    keep(
        run_dir / "plan.json",
        fake,
        PlanFile(
            run=fake.name,
            suite=fake.name,
            description=fake.description,
            source=fake.source,
            cells=infos,
            code_digest=fake.code_digest,
            created="2026-07-01T09:00:00+00:00",
        ),
    )
    return run_dir


def keep(path: Path, fake: Fake, record: Record) -> None:
    """Write a record as this fake run's records are."""
    write_record(path, record)
    if not fake.sealed:
        unseal(path)


def unseal(path: Path) -> dict[str, Any]:
    """Take the hash of its content out of a record, as it was before there was one; what it says."""
    raw: dict[str, Any] = json.loads(path.read_text())
    raw.pop("sha256", None)
    path.write_text(json.dumps(raw, indent=1) + "\n")
    return raw


def cell(fake: Fake, model: str, task: str, strategy: str, seed: int) -> CellInfo:
    """The identity of one fake cell."""
    family, seeded = STRATEGIES.get(strategy, ("other PEFT", True))[:2]
    mark = hashlib.sha256(f"{model}{task}{strategy}{seed}".encode()).hexdigest()[:8]
    info = CellInfo(
        id=re.sub(r"[^\w.-]", "_", f"{task}-{strategy}-s{seed}-{mark}")[:100],
        suite=fake.name,
        model=model,
        task=task,
        strategy=strategy,
        base_strategy=strategy,
        family=family,
        group=fake.groups.get(strategy),
        readout="verbalizer",
        metric=TASKS[task][0],
        seed=seed,
        seeded=seeded,
        options={"r": 8},
        budget={"labels": 128, "train_examples": 256, "memory_gib": None},
        precision="fp32",
        device="cuda" if fake.cuda else "cpu",
        batch=8,
        sequence=256,
        model_fingerprint=f"sha256:{model}",
        task_digest="0" * 16,
        numerics=1,
    )
    return info.model_copy(update={"id": id_of(info, FINGERPRINT)}) if fake.hashed else info


def _rng(*parts: object) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "little"))


def _labels(task: str, fake: Fake) -> np.ndarray:
    _, k, share, _, n = TASKS[task]
    weights = [(1 - share) / (k - 1)] * (k - 1) + [share]
    return _rng("labels", task).choice(k, size=fake.items or n, p=weights)


def _predictions(fake: Fake, info: CellInfo, labels: np.ndarray) -> np.ndarray:
    """Right where an item's difficulty lies below the strategy's skill, which a seed moves by about a point."""
    _, k, share, ease, _ = TASKS[info.task]
    skill = STRATEGIES.get(info.strategy, ("", True, 0.8))[2] * EASE[ease] * fake.skill
    jolt = 0.012 * _rng("jolt", info.id).standard_normal() if info.seeded else 0.0
    difficulty = _rng("items", info.task).random(labels.size)
    noise = _rng("noise", info.id)
    knows = difficulty + 0.08 * noise.standard_normal(labels.size) < skill + jolt
    if skill == 0:
        return np.full(labels.size, np.bincount(labels).argmax())
    return np.where(knows, labels, noise.choice(k, size=labels.size, p=[(1 - share) / (k - 1)] * (k - 1) + [share]))


def _write_cell(folder: Path, fake: Fake, info: CellInfo, labels: np.ndarray) -> None:
    folder.mkdir()
    status = fake.statuses.get((info.task, info.strategy, info.seed), Status.ok)
    result = _failed(fake, info, status) if status is not Status.ok else None
    if result is None:
        predicted = _predictions(fake, info, labels)
        pq.write_table(
            pa.table(
                {
                    "row": np.arange(labels.size),
                    "label": labels,
                    "predicted": predicted,
                    "score_0": _rng(info.id).random(labels.size),
                }
            ),
            folder / "predictions.parquet",
        )
        result = _succeeded(fake, info, labels, predicted)
    keep(folder / "result.json", fake, fake.edit(result) if fake.edit else result)


def environment(digest: str) -> dict[str, Any]:
    """What a record says of its machine."""
    return {
        "machine": {
            "system": "Linux",
            "cpu": "AMD EPYC 7B13",
            "cores": 2,
            "memory_bytes": 16 * GIB,
            "gpu": None,
            "id": "ab12cd34ef56",
        },
        "versions": {"python": "3.11.9", "torch": "2.13.0", "transformers": "5.23.0", "bitsandbytes": None},
        "commit": "0123abcd" * 5,
        "dirty": False,
        "code_digest": digest,
        "threads": 2,
        "time": "2026-07-01T10:00:00+00:00",
    }


def _common(fake: Fake, info: CellInfo) -> dict[str, Any]:
    return {
        "cell": info,
        "environment": environment(fake.code_digest),
        "data": DataInfo(
            source=fake.source,
            fingerprint=FINGERPRINT,
            train_rows=67_349,
            test_rows=fake.items or 872,
            truncated=3,
            labels=["negative", "positive"],
        ),
        "model_note": "instruction-tuned, dequantised from a 4-bit GGUF: zero_shot already holds instruction tuning",
    }


def _failed(fake: Fake, info: CellInfo, status: Status) -> Result:
    return Result(
        outcome=Outcome(status=status, reason=REASONS[status]),
        phases={"load": Phase(seconds=2.1)},
        **_common(fake, info),
    )


def _succeeded(fake: Fake, info: CellInfo, labels: np.ndarray, predicted: np.ndarray) -> Result:
    _, _, _, gib, took, trainable = STRATEGIES.get(info.strategy, ("other PEFT", True, 0.8, 2.0, 40.0, 1000))
    wobble = 1 + 0.02 * _rng("cost", info.id).standard_normal()
    peak = {"peak_allocated_bytes" if fake.cuda else "peak_rss_bytes": int(gib * wobble * GIB)}
    trains = trainable > 0
    scores = {name: score(name, labels, predicted) for name in dict.fromkeys((info.metric, "accuracy"))}
    return Result(
        outcome=Outcome(status=Status.ok),
        scores=scores,
        parameters=Parameters(trainable=trainable, total=134_515_008, stored_bytes=trainable * 4, created=0),
        phases={
            "load": Phase(seconds=2.1, peak_rss_bytes=int(0.8 * GIB)),
            "adapt": Phase(
                seconds=took * wobble,
                tokens=9000,
                padded_tokens=9900,
                flops=4.1e12 if trains else None,
                tokens_per_second=280.0 if trains else None,
                **peak,
            ),
            "predict": Phase(seconds=18.4 * wobble, peak_rss_bytes=int(0.9 * GIB)),
        },
        used=Used(
            ended_by="train_examples" if trains else "nothing to train",
            labels=128 if trains else 0,
            train_examples=256 if trains else 0,
            train_tokens=9000 if trains else 0,
            train_seconds=took,
            progress=1.0,
        ),
        training=Training(losses=[0.7, 0.4], still_improving=info.strategy == "bitfit") if trains else None,
        **_common(fake, info),
    )
