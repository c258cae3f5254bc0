"""How much a generated text shares with a reference: ROUGE and chrF, all values 0 to 1.

The libraries that define these metrics count, so that the values are those of the literature. They take seconds to
import (rouge-score loads NLTK) and are loaded on first use.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

ROUGE = ("rouge1", "rouge2", "rougeL")


def rouge(prediction: str, reference: str) -> dict[str, float]:
    """F1 of the words, of the word pairs and of the longest common subsequence (Lin 2004), with Porter's stemmer.

    rouge-score keeps ASCII letters and digits only: of "Köln" it counts "k" and "ln". A text of one word has no pair,
    so its rouge2 is 0 even against itself. An empty prediction gives 0. Raises `ValueError` for a reference without
    a letter a-z or digit: no prediction could ever score.
    """
    if not any(sign.isascii() and sign.isalnum() for sign in reference.lower()):
        raise ValueError(f"rouge: got the reference {reference!r}; allowed: at least one letter a-z or digit")
    found = _scorer().score(reference, prediction)
    return {name: float(found[name].fmeasure) for name in ROUGE}


def chrf(prediction: str, reference: str) -> float:
    """Sentence chrF2 (Popovic 2015): F of character n-grams up to 6, recall weighed twice, spaces left out.

    sacrebleu's defaults, whose 0..100 becomes 0..1: case counts, and orders longer than either text are left out, so
    a prediction of one character can score 1. An empty prediction gives 0. Raises `ValueError` for an empty reference.
    """
    _check("chrf", reference)
    return float(_chrf().sentence_score(prediction, [reference]).score) / 100


def corpus_chrf(predictions: Sequence[str], references: Sequence[str]) -> float:
    """chrF2 of all n-grams of a test set together, item by item: long texts weigh more than in the mean of `chrf`.

    Raises `ValueError` for an empty reference, for none at all and for lists of different lengths.
    """
    if len(predictions) != len(references) or not references:
        raise ValueError(
            f"corpus_chrf: got {len(predictions)} predictions and {len(references)} references; allowed: as many of "
            "each, at least one"
        )
    for position, reference in enumerate(references):
        _check(f"corpus_chrf, item {position}", reference)
    return float(_chrf().corpus_score(list(predictions), [list(references)]).score) / 100


def _check(what: str, reference: str) -> None:
    """Raise `ValueError` for a reference of nothing but spaces."""
    if not reference.strip():
        raise ValueError(f"{what}: got the reference {reference!r}; allowed: any text that is not empty")


@cache
def _scorer() -> Any:
    from rouge_score import rouge_scorer  # type: ignore[import-untyped]

    return rouge_scorer.RougeScorer(list(ROUGE), use_stemmer=True)


@cache
def _chrf() -> Any:
    from sacrebleu.metrics import CHRF

    return CHRF()
