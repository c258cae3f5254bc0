"""Which test texts occur in what a cell trained on, as a check of contamination."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.data.overlap import TOO_SHORT
from bench.data.overlap import Overlap as Overlap
from bench.data.overlap import longest_runs as longest_runs
from bench.data.overlap import overlap as overlap
from bench.data.overlap import row_text as row_text
from bench.data.overlap import units_of as units_of
from bench.data.overlap import words_of as words_of
from bench.probed import SHORT, Check, Verdict
from bench.stats.intervals import wilson


def check(
    trained: Sequence[str],
    tested: Sequence[str],
    name: str = "overlap",
    what: str = "what it trained on",
    made: bool = False,
) -> Check:
    """Overlap as a check: the share of test items found, with Wilson's interval. `seen` where any is found, `no power`
    where all are too short to be looked for."""
    if not trained:
        return Check(
            name=name,
            family="overlap",
            verdict="not applicable",
            says=f"Overlap: there is nothing in {what} to look in.",
        )
    result = overlap(trained, tested, made)
    found, n = sum(result.found), len(tested)
    short = sum(words < TOO_SHORT for words in result.words)
    interval = wilson(found, n)
    figures = {
        "trained texts": float(len(trained)),
        "items equal to a trained text": float(sum(result.equal)),
        "items found whole": float(sum(result.whole)),
        "items found by 13 words in a row": float(sum(result.gram)),
        "items with a long common run": float(sum(result.long)),
        SHORT: float(short),
        "median longest run, share of words": float(np.median(result.share)),
    }
    whole, looked = sum(result.whole), f"{what} ({len(trained):,} texts)"
    says = (
        f"{found} of {n} test items stand in {looked}: {whole} whole, {found - whole} by 13 words in a row or more. "
        "Whatever stands there can be learnt by heart."
    )
    if not found:
        says = f"None of {n} test items stands in {looked}, whole or 13 words in a row. A rewording is not found so."
    if short and not found:
        says += f" The {short} of fewer than {TOO_SHORT} words are not looked for."
    if short == n:
        says = (
            f"All {n} test items have fewer than {TOO_SHORT} words: such texts are everybody's, so nothing follows "
            f"from the {sum(result.equal)} that stand in {looked} too."
        )
    verdict: Verdict = "seen" if found else "no power" if short == n else "not seen"
    return Check(
        name=name, family="overlap", statistic=found / n, low=interval.low, high=interval.high, n=n,
        figures=figures, verdict=verdict, says=says,
    )  # fmt: skip
