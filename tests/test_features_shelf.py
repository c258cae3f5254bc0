"""The shelf of features: what is kept is whole or absent, and a step is charged what the forward took when it ran."""

from __future__ import annotations

import hashlib
import multiprocessing
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from bench.budget import Meter
from bench.config.schema import Budget
from bench.measure import lent
from bench.measure.lent import Cost
from bench.measure.phases import Ledger
from bench.models.parts import freeze
from bench.predict.rehearse import HeavyMeter
from bench.score.features import Kept, OnFeatures, Shelf, folder_of, read, write
from bench.score.heads import HeadReader


@cache
def probe() -> tuple[HeadReader, torch.nn.Module, Any]:
    """A reader, an untouched module and a batch."""
    base = tiny.base("tiny-gpt2")
    freeze(base.module)
    reader = HeadReader(base, tiny.context("head"))
    return reader, reader.target().eval(), reader.collate(reader.encode(tiny.rows().test.fields[:3]))


def asked(shelf: Shelf, meter: Meter) -> torch.Tensor:
    """Features of the batch, in a step."""
    reader, module, batch = probe()
    with torch.inference_mode(), meter.step(batch.shape, batch.items):
        return shelf.features(reader, module, batch, meter)


@pytest.mark.parametrize("damage", ["cut", "empty", "turned", "cost", "nothing like it"])
def test_a_damaged_file_is_read_as_absent(damage: str, tmp_path: Path) -> None:
    """And replaced by what the model gives."""
    right = asked(Shelf(tmp_path), Meter())
    [file] = tmp_path.iterdir()
    whole = file.read_bytes()
    turned = bytearray(whole)
    turned[-3] ^= 1  # one bit of a number
    wrong = {
        "cut": whole[: len(whole) // 2],
        "empty": b"",
        "turned": bytes(turned),
        "cost": whole.replace(b'"rows": 3', b'"rows": 1'),
        "nothing like it": b"features",
    }[damage]
    assert wrong != whole
    file.write_bytes(wrong)
    assert read(file) is None
    meter = Meter()
    assert torch.equal(asked(Shelf(tmp_path), meter), right) and file.read_bytes() != wrong
    kept = read(file)
    assert kept is not None and torch.equal(kept.features, right)


def test_a_whole_file_of_another_layout_is_read_as_absent(tmp_path: Path) -> None:
    """Its checksum is right, and it does not say what a forward cost."""
    asked(Shelf(tmp_path), Meter())
    [file] = tmp_path.iterdir()
    body = file.read_bytes()[32:].replace(b'"padded_tokens"', b'"tokens_padded"')
    file.write_bytes(hashlib.sha256(body).digest() + body)
    assert read(file) is None


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(tmp_path: Path) -> None:
    """The cell goes on."""
    (tmp_path / "file").write_text("")
    here = asked(Shelf(tmp_path / "file" / "below"), Meter())
    assert torch.equal(here, asked(Shelf(None), Meter())) and [f.name for f in tmp_path.iterdir()] == ["file"]


def hammer(path: Path, number: int, wrong: Any) -> None:
    """Write and read one file again and again."""
    for _ in range(200):
        write(path, kept_of(number))
        found = read(path)
        if found is None or not torch.equal(found.features, torch.full((64, 32), found.cost.rows)):
            wrong.value += 1


def kept_of(number: int) -> Kept:
    return Kept(torch.full((64, 32), float(number)), Cost(0.0, 0, 0, number, 0, 0, False), {})


def test_two_processes_never_see_half_a_file(tmp_path: Path) -> None:
    """Each finds what one of them wrote whole."""
    here = multiprocessing.get_context("fork")
    torch.set_num_threads(1)  # a process with threads of its own must not fork
    wrong = here.Value("i", 0)
    both = [here.Process(target=hammer, args=(tmp_path / "one", n, wrong)) for n in (1, 2)]
    for one in both:
        one.start()
    for one in both:
        one.join(60)
    assert [one.exitcode for one in both] == [0, 0] and wrong.value == 0
    assert [f.name for f in tmp_path.iterdir()] == ["one"]


def test_a_rehearsal_neither_reads_nor_writes(tmp_path: Path) -> None:
    """Its fakes have no values, and what it foretells is the whole work."""
    asked(Shelf(tmp_path), HeavyMeter())
    assert not list(tmp_path.iterdir())
    asked(Shelf(tmp_path), Meter())
    meter = HeavyMeter()
    meter.watch([probe()[1]])
    asked(Shelf(tmp_path), meter)
    meter.unwatch()
    assert meter.rows == 3


def test_a_step_is_charged_what_the_forward_took_when_it_ran(tmp_path: Path) -> None:
    """Seconds of the forward for seconds of looking it up; a budget of seconds ends where it would have ended."""
    first = Meter()
    first.watch([probe()[1]])
    asked(Shelf(tmp_path), first)
    [file] = tmp_path.iterdir()
    kept = read(file)
    assert kept is not None and 0 < kept.cost.seconds < first.seconds and kept.cost.counted
    write(file, replace(kept, cost=replace(kept.cost, seconds=40.0)))
    meter = Meter(Budget(labels=8, train_seconds=100))
    meter.watch([probe()[1]])
    shelf = Shelf(tmp_path)
    for charged in (40, 80):
        assert meter.affords(meter.cost(3, 1, probe()[2].shape))
        asked(shelf, meter)
        assert charged < meter.seconds < charged + 1
    assert not meter.affords(meter.cost(3, 1, probe()[2].shape)), "two steps of 40 seconds were seen, 20 are left"
    probe_batch = probe()[2]
    assert meter.rows == 6 and meter.tokens == 2 * probe_batch.tokens and meter.padded_tokens == 6 * probe_batch.padded
    assert meter.flops == 2 * first.flops
    assert not any(step.timed for step in meter.steps), "these seconds held the counting of FLOPs"


def test_of_a_step_that_fails_nothing_is_charged(tmp_path: Path) -> None:
    """Nor does the next one pay for it."""
    asked(Shelf(tmp_path), Meter())
    meter, (reader, module, batch) = Meter(), probe()
    meter.watch([module])
    with pytest.raises(MemoryError), meter.step(batch.shape, 3):
        Shelf(tmp_path).features(reader, module, batch, meter)
        raise MemoryError
    assert (meter.rows, meter.tokens, meter.padded_tokens, meter.seconds, meter.flops) == (0, 0, 0, 0.0, 0.0)
    asked(Shelf(tmp_path), meter)
    assert meter.rows == 3 and len(meter.steps) == 1
    meter.unwatch()


def test_a_phase_that_was_lent_to_never_shows_a_small_peak(tmp_path: Path) -> None:
    """It shows the peak of the phase that read, and how much of its time it did not take."""
    ledger = Ledger("cpu")
    with ledger.phase("predict"):
        asked(Shelf(tmp_path), Meter())
    [file] = tmp_path.iterdir()
    kept = read(file)
    assert kept is not None and kept.peaks.keys() == {"peak_rss_bytes"}
    high = kept.peaks["peak_rss_bytes"]
    assert 0 < high <= (ledger.phases["predict"].peak_rss_bytes or 0)
    write(file, replace(kept, cost=replace(kept.cost, seconds=7.0), peaks={"peak_rss_bytes": 2**50}))
    with ledger.phase("probe"):
        asked(Shelf(tmp_path), Meter())
    phase = ledger.phases["probe"]
    assert phase.peak_rss_bytes == 2**50 and 7 < phase.seconds < 8
    assert (phase.cached_steps, phase.cached_forwards, phase.cached_seconds) == (1, 3, 7.0)
    assert lent.now() is None


def test_what_was_read_without_measuring_memory_is_read_again_where_it_is_measured(tmp_path: Path) -> None:
    """Else a phase would have no peak to show."""
    asked(Shelf(tmp_path), Meter())
    ledger = Ledger("cpu")
    for name in ("adapt", "predict"):
        with ledger.phase(name):
            asked(Shelf(tmp_path), Meter())
    assert ledger.phases["adapt"].cached_steps is None and ledger.phases["predict"].cached_steps == 1


def test_another_model_type_of_number_or_prompt_is_another_shelf(tmp_path: Path) -> None:
    """What a batch holds is the file's name; what reads it, the folder's."""
    known = ("sha256:1", "fp32", "cpu")
    others = [("sha256:2", "fp32", "cpu"), ("sha256:1", "bf16", "cpu"), ("sha256:1", "fp32", "cuda")]
    assert len({folder_of(str(tmp_path), *one) for one in (known, *others)}) == 4
    torch.set_num_threads(2)
    threads = folder_of(str(tmp_path), *known)
    torch.set_num_threads(1)
    assert threads != folder_of(str(tmp_path), *known), "threads decide in which order sums are made"
    base = tiny.base("tiny-gpt2")
    freeze(base.module)
    reader = HeadReader(base, tiny.context("head"))
    answer = OnFeatures(reader.target(), reader, Shelf(tmp_path))
    fields = tiny.rows().test.fields
    plain = answer.predict(fields, Meter())
    before = len(list(tmp_path.iterdir()))
    other = answer.through(tiny.task().templates[0].model_copy(update={"pattern": "{text}!"}))
    assert isinstance(other, OnFeatures) and not np.array_equal(other.predict(fields, Meter()), plain)
    assert len(list(tmp_path.iterdir())) > before
    assert np.array_equal(answer.predict(fields, Meter()), plain)
