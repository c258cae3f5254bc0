"""What is kept of a written answer that is no label: its overlaps with a text, or its spans counted; and what a
baseline that reads no label would have of it.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bench.config.task import TARGET, Task
from bench.data.rows import Rows
from bench.data.spans import counts, f1, parse
from bench.records import Score
from bench.score.overlaps import ROUGE, chrf, rouge
from bench.stats.ratios import family, ratio_score, ratio_value

SENTENCE = re.compile(r".+?[.!?](?=\s|$)", re.DOTALL)
WORD = re.compile(r"\w[\w'’&-]*")
"""A word as it is looked at for its capital."""


def marks(reply: str, target: str, task: Task) -> tuple[float, ...]:
    """The numbers of `task.kept` for one reply."""
    if task.kind == "tag":
        return tuple(map(float, counts(parse(reply, task.labels), parse(target, task.labels))))
    words = rouge(reply, target)
    return (*(words[name] for name in ROUGE), chrf(reply, target))  # in the order of OVERLAPS


def columns(scores: NDArray[np.floating], task: Task) -> dict[str, NDArray[np.floating]]:
    """Marks (n, numbers kept) by name."""
    return {name: scores[:, i] for i, name in enumerate(task.kept)}


def baseline(test: Rows, task: Task) -> tuple[NDArray[np.floating], str]:
    """Marks (n, numbers kept) of answers that read no label, and what they are in words: chance.

    Texts: the first sentence of the source, cut to the median number of words of the answers there should be (the lead
    baseline of summarisation, See, Liu & Manning 2017, section 5, here of one sentence). Entities: every run of
    capitalised words, all called by the one type that scores best, as accuracy's best constant label is chosen.
    """
    if task.kind == "tag":
        return _capitals(test, task)
    assert task.reply is not None
    field = task.reply.source or task.prompt_fields[0]
    length = round(statistics.median(len(fields[TARGET].split()) for fields in test.fields))
    leads = [lead(fields[field], length) for fields in test.fields]
    told = f"the first sentence of the {field}, at most {length} words of it"
    return np.array([marks(text, f[TARGET], task) for text, f in zip(leads, test.fields, strict=True)]), told


def lead(text: str, words: int) -> str:
    """The first sentence of a text, at most so many words of it."""
    found = SENTENCE.match(text.strip())
    return " ".join((found[0] if found else text).split()[:words])


def _capitals(test: Rows, task: Task) -> tuple[NDArray[np.floating], str]:
    """The baseline of entities."""
    runs = [[run for name in task.prompt_fields for run in capitals(f[name])] for f in test.fields]
    gold = [parse(f[TARGET], task.labels) for f in test.fields]

    def called(kind: str) -> list[tuple[int, int, int]]:
        return [counts([(kind, run) for run in row], right) for row, right in zip(runs, gold, strict=True)]

    best = max(task.labels, key=lambda kind: f1(called(kind)))
    return np.array(called(best), dtype=float), f"every run of capitalised words, each called {best}"


def capitals(text: str) -> list[str]:
    """Runs of words that begin with a capital, as they stand; one word alone at the start of a sentence is none."""
    runs: list[tuple[int, int]] = []
    begins: set[int] = set()
    end = 0
    for word in WORD.finditer(text):
        before = text[end : word.start()]
        fresh = end == 0 or bool(re.search(r"[.!?]", before))
        if word[0][:1].isupper():
            if runs and runs[-1][1] == end and before.isspace():
                runs[-1] = (runs[-1][0], word.end())
            else:
                runs.append((word.start(), word.end()))
                if fresh:
                    begins.add(word.start())
        end = word.end()
    return [text[a:b] for a, b in runs if not (a in begins and not re.search(r"\s", text[a:b]))]


def marked(scores: NDArray[np.floating], test: Rows, task: Task, clusters: Sequence[int] | None) -> dict[str, Score]:
    """The task's metric and those beside it, from marks (n, numbers kept), each with its interval and its baseline."""
    kept, (other, told) = columns(scores, task), baseline(test, task)
    trivial = columns(other, task)
    return {
        name: ratio_score(name, kept, ratio_value(name, trivial), told, clusters=clusters)
        for name in family(task.metric)
    }
