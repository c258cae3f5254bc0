"""Steps a meter has seen. Their seconds lie between two moments: of the host's clock, or on a card events that nobody
waits for."""

from __future__ import annotations

from dataclasses import dataclass

import torch

Moment = float | torch.cuda.Event
"""Seconds of the host's clock, or an event in the card's stream."""


@dataclass
class Step:
    """One optimizer step or scoring batch."""

    seconds: float
    tokens: int
    flops: float
    recomputed: float
    """FLOPs of forward passes repeated under gradient checkpointing, not part of `flops`."""
    timed: bool
    """Whether it counts for throughput: not while FLOPs were being counted, nor in warm-up."""
    aside: bool = False
    """Whether it is work beside optimizer steps, which tells nothing of what the next of those costs."""


@dataclass
class Unread:
    """A finished step of which something is known on the device only."""

    step: Step
    tokens: list[torch.Tensor]
    """Sums of masks, to be added to its tokens."""
    events: tuple[torch.cuda.Event, torch.cuda.Event] | None
    """Where it begins and ends in the card's stream; None: its seconds are known."""


def on_card() -> torch.cuda.Event:
    """An event in the card's stream, here: it passes once all work given before it is done."""
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def seconds_between(start: torch.cuda.Event, end: torch.cuda.Event) -> float:
    """Seconds from one event to the other by the card's own clock. Waits until the second has passed."""
    end.synchronize()
    return float(start.elapsed_time(end)) / 1000
