"""Has a cell gained more on its test items than on like items that nobody trained on?

The one statistic, named beforehand: the gain over the base of the gold label's log-probability in the training
readout (log-softmax over the label scores), mean over test items less mean over their controls. A loss held against
that of a model that has not seen the item is the attack of Watson et al. 2022 (difficulty calibration) and Ye et al.
2022 (attack R); here the other model is the base itself, and the loss the very one that training lowered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.data.rows import Rows
from bench.data.splits import text_key
from bench.probed import Check, Verdict
from bench.stats.contamination import LEVEL, Paired, matched, paired
from bench.stats.intervals import wilson

MEANINGFUL = 0.1
"""Mean gain in nats that matters: the right label's probability times 1.1, which moves an item answered at 0.50 to
0.55. A leak below it hardly moves a score; a check that cannot tell this much has no power."""
SPARE = 3
"""Candidates for controls a test item: enough to match well, and the base need not answer a whole large pool."""

Floats = NDArray[np.floating]


def members(pool_size: int, items: int, seed: int) -> tuple[list[int], list[int]]:
    """Positions of the test items and of the candidates for controls: a random split of the pool by the seed.

    Half of the pool at most is test items. Candidates are up to three a test item, in random order. Both come from one
    pool split at random, so without a leak nothing tells them apart. Raises `ValueError` for a pool of fewer than 2.
    """
    if pool_size < 2:
        raise ValueError(f"a pool of {pool_size} cannot be split into test items and controls")
    order = np.random.default_rng([seed % 2**63, 7]).permutation(pool_size).tolist()
    tests = min(items, pool_size // 2)
    return sorted(order[:tests]), order[tests : tests + SPARE * tests]


def draw_members(pool: Rows, items: int, seed: int) -> tuple[Rows, Rows]:
    """Test items (those a planted cell is trained on) and candidates for controls; no candidate has the text of a
    test item, and no text is twice among the candidates."""
    tests, candidates = members(len(pool), items, seed)
    met = {text_key(pool.fields[i]) for i in tests}
    kept = []
    for i in candidates:
        key = text_key(pool.fields[i])
        if key not in met:
            met.add(key)
            kept.append(i)
    return pool.take(tests), pool.take(kept)


def gold(scores: Floats, labels: Sequence[int]) -> Floats:
    """Log-probability of each row's right label, renormalised over the labels; scores are (rows, labels)."""
    top = scores.max(-1)
    norm = top + np.log(np.exp(scores - top[:, None]).sum(-1))
    right: Floats = scores[np.arange(len(labels)), list(labels)] - norm
    return right


def controls(base: Floats | None, tests: Rows, candidates: Rows, seed: int) -> list[tuple[int, int]]:
    """Pairs of a test item and its control, as positions in `tests` and `candidates`; see `matched`.

    `base`: the base's gold log-probabilities of tests, then candidates; None where the base has none (a head readout):
    then the label alone is matched, at random.
    """
    n = len(tests)
    if base is None:
        order = np.random.default_rng([seed % 2**63, 11]).permutation(len(candidates))
        found = matched(
            np.zeros(n), np.zeros(len(order)), tests.labels, [candidates.labels[i] for i in order.tolist()]
        )  # fmt: skip
        return [(i, int(order[j])) for i, j in found]
    return matched(base[:n], base[n:], tests.labels, candidates.labels)


@dataclass(frozen=True)
class Evidence:
    """What membership is judged by: gains of test items and their controls, matched pair by pair, in nats."""

    test: Floats
    control: Floats
    correct: int
    """Test items and controls answered right."""
    chance: float
    head: bool = False
    """Whether the readout is a head: then there is no base to gain over, and these are plain log-probabilities."""


def judge(evidence: Evidence, seed: int = 0, draws: int = 10_000) -> Check:
    """The membership check.

    `seen`: p at most 0.05 (before Holm). Otherwise `not seen` is said only where the check could have told: the
    cell beats chance, and the interval lies below what matters (0.1 nats).
    In every other case `no power`: nothing follows. One pair has no error, and an endless interval
    no place in a record.
    """
    if evidence.test.size < 2:
        says = "One test item has a control that nobody trained on: of one pair nothing follows."
        return Check(name="membership", family="membership", n=evidence.test.size, verdict="no power", says=says)
    test = paired(evidence.test - evidence.control, seed, draws)
    n = 2 * test.n
    interval = wilson(evidence.correct, n)
    verdict, why = _verdict(test, interval.low <= evidence.chance)
    figures = {
        "smallest gain told at 80%": test.detectable,
        "gain that matters": MEANINGFUL,
        "mean gain of test items": float(evidence.test.mean()),
        "mean gain of controls": float(evidence.control.mean()),
        "accuracy on both": evidence.correct / n,
    }
    if evidence.head:
        why += " Under a head the base has no score, so the controls are matched on the label only."
    return Check(
        name="membership", family="membership", statistic=test.value, low=test.low, high=test.high, p=test.p, n=test.n,
        reference="controls", figures=figures, verdict=verdict, says=_sentence(test, evidence, why),
    )  # fmt: skip


def _verdict(test: Paired, at_chance: bool) -> tuple[Verdict, str]:
    if test.p <= LEVEL:
        return "seen", "The test items were learnt as such."
    if at_chance:
        return "no power", "The cell answers at chance: this check has no power here, nothing follows."
    if test.high < MEANINGFUL:
        return "not seen", f"A gain that matters ({MEANINGFUL:.2f} nats) is excluded."
    return "no power", f"It could tell {test.detectable:.2f} nats, and {MEANINGFUL:.2f} would matter: nothing follows."


def _sentence(test: Paired, evidence: Evidence, why: str) -> str:
    what = "are likelier" if evidence.head else "gained more"
    return (
        f"Right labels of {test.n} test items {what} than those of as many matched controls by {test.value:+.3f} nats "
        f"[{test.low:+.3f}, {test.high:+.3f}], p {test.p:.2g}. {why}"
    )
