"""Which configuration is taken: all of them to the end, or the worse half dropped at every halt.

Successive halving (Jamieson & Talwalkar 2016, algorithm 1): all start with a share of the budget, the better half goes
on to twice that share, until one is left. Every schedule is that of the whole budget, so a halted training is the
beginning of the full one. The same policy serves every strategy; what a strategy without training spends is the
held-out labels it is asked about.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from bench.records import Halt, Trial

Ask = Callable[[int, float], float]
"""(configuration, share of the budget) -> mean log-likelihood of held-out labels then, nats; -inf where it failed."""


def halts(number: int) -> list[float]:
    """Shares of the budget at which the worse half of `number` configurations is dropped, ascending."""
    rounds = math.ceil(math.log2(number)) if number > 1 else 0
    return [0.5 ** (rounds - i) for i in range(rounds)]


def better_half(values: dict[int, float]) -> list[int]:
    """The better half, rounded up, in order; of equals the first: the default is number 0."""
    ranked = sorted(values, key=lambda i: (-values[i], i))
    return sorted(ranked[: math.ceil(len(ranked) / 2)])


def halving(number: int, ask: Ask) -> tuple[int, dict[int, list[Halt]]]:
    """The configuration left, and what was seen of each on the way."""
    left, seen = list(range(number)), {i: [] for i in range(number)}  # type: tuple[list[int], dict[int, list[Halt]]]
    for share in halts(number):
        values = {i: ask(i, share) for i in left}
        for i, value in values.items():
            seen[i].append(halt(share, value))
        left = better_half(values)
    return left[0], seen


def grid(number: int, ask: Ask) -> tuple[int, dict[int, list[Halt]]]:
    """The best at the end of the whole budget, each seen at the halts of `halving` too: so its regret is known."""
    shares = [*halts(number), 1.0]
    seen = {i: [halt(share, ask(i, share)) for share in shares] for i in range(number)}
    final = {i: last(seen[i]) for i in seen}
    return min(final, key=lambda i: (-final[i], i)), seen


def halt(share: float, value: float) -> Halt:
    """As it is recorded; a configuration that failed has no likelihood."""
    return Halt(share=share, log_likelihood=value if math.isfinite(value) else None)


def last(seen: Sequence[Halt]) -> float:
    """The latest likelihood."""
    value = seen[-1].log_likelihood
    return -math.inf if value is None else value


def replayed(trials: Sequence[Trial]) -> int:
    """Which configuration `halving` would have taken, told from the halts of a grid."""
    by_share = [{h.share: h.log_likelihood for h in t.halts} for t in trials]

    def ask(i: int, share: float) -> float:
        value = by_share[i].get(share)
        return -math.inf if value is None else value

    return halving(len(trials), ask)[0]
