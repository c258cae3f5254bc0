"""Timing and memory of `load`, `adapt`, `predict` and `probe`: apart, never overlapping, peaks reset at each."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from bench.budget import Meter
from bench.measure import card, lent, memory
from bench.records import Phase


class Ledger:
    """The phases of one cell, in order."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.phases: dict[str, Phase] = {}

    @contextmanager
    def phase(self, name: str, meter: Meter | None = None) -> Iterator[None]:
        """Measure the block as phase `name`; a failure inside is still measured."""
        resettable = memory.reset_high_water()
        baseline = memory.resident()
        cuda = self.device == "cuda"
        if cuda:
            import torch

            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        energy = card.energy_joules() if cuda else None
        start = time.perf_counter()
        with ExitStack() as stack:
            driver = stack.enter_context(memory.Sampler(card.process_bytes)) if cuda else None
            # without a resettable high-water mark (macOS, some containers) the peak is sampled
            resident = None if resettable else stack.enter_context(memory.Sampler(memory.resident))

            def peaks() -> dict[str, int]:
                return peaks_now(cuda, driver, resident)

            borrowed = stack.enter_context(lent.phase(peaks))
            try:
                yield
            finally:
                if cuda:
                    torch.cuda.synchronize()
                seconds = time.perf_counter() - start + borrowed.ahead
                stack.close()
                figures: dict[str, Any] = {"seconds": seconds, "baseline_rss_bytes": baseline}
                figures |= {name: max(value, borrowed.highest.get(name, 0)) for name, value in peaks().items()}
                if cuda and not borrowed.steps:  # nobody knows how much of a phase's energy one forward takes
                    after = card.energy_joules()
                    if energy is not None and after is not None:
                        figures["energy_joules"] = after - energy
                if borrowed.steps:
                    figures |= {
                        "cached_steps": borrowed.steps,
                        "cached_forwards": borrowed.forwards,
                        "cached_seconds": borrowed.seconds,
                    }
                self.phases[name] = Phase(**figures, **(metered(meter) if meter is not None else {}))


def peaks_now(cuda: bool, driver: memory.Sampler | None, resident: memory.Sampler | None) -> dict[str, int]:
    """The peaks of the running phase up to now, bytes; what is not known is left out."""
    found: dict[str, int | None] = {"peak_rss_bytes": memory.high_water() if resident is None else resident.peak}
    if cuda:
        import torch

        found["peak_allocated_bytes"] = torch.cuda.max_memory_allocated()
        found["peak_reserved_bytes"] = torch.cuda.max_memory_reserved()
        found["peak_device_bytes"] = (driver.peak or None) if driver else None
    return {name: value for name, value in found.items() if value is not None}


def metered(meter: Meter) -> dict[str, Any]:
    """What a meter adds to its phase; nothing where it saw no step."""
    if not meter.steps and not meter.tokens:
        return {}
    return {
        "step_seconds": meter.seconds,
        "steps": len(meter.steps),
        "examples": meter.examples,
        "forwards": meter.rows,
        "tokens": meter.tokens,
        "padded_tokens": meter.padded_tokens,
        "tokens_per_second": meter.throughput(),
        "flops": meter.flops,
        "recomputed_flops": meter.recomputed or None,
        "halved": meter.halved or None,
    }
