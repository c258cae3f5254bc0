"""A bag of words: TF-IDF and logistic regression. No model reads anything: the floor that one has to beat."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from bench.config.schema import Task, Template
from bench.config.task import ANSWERS
from bench.space import Choice
from bench.strategy import Options, Plan, Strategy, TaskContext, Unsupported

if TYPE_CHECKING:
    from bench.budget import Meter
    from bench.data.rows import Rows
    from bench.models.base import Base

STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0, 10_000.0)
"""Inverse penalties that cross-validation chooses from."""
PLAIN = 1.0
"""The one taken where the labels are too few to hold any back (scikit-learn's own)."""
FOLDS = 5
MOST_ITERATIONS = 10_000
UNSEEN = -30.0
"""Log-odds of a label that no labelled row has."""
KINDS = ("classify", "prefer")
FILES = ("runs.json", "weights.safetensors")


class BagOfWordsOptions(Options):
    """Options of `bag_of_words`."""

    runs: int = Field(2, ge=1, le=3)
    """Longest run of words that is counted: 2 counts single words and pairs of neighbours."""
    c: float | None = Field(None, gt=0)
    """Inverse strength of the L2 penalty; null: chosen by cross-validation within the labels."""


class BagOfWords(Strategy):
    """Counts of words and word pairs, weighted by TF-IDF, and a linear model on them, solved to convergence.

    On pairs of answers it is Bradley and Terry's model with a linear reward: logistic regression on the difference of
    the two answers' vectors, without an intercept, so that exchanging the answers exchanges the verdict.
    """

    family = "bag of words"
    trains = "a linear model on counts of words; no model is run"
    parameters = "(C + 1) n, n the runs of words in the labelled rows; n on pairs"
    memory = "counts of the labelled rows; the model is loaded with the run and not used"
    paper = "Salton & Buckley 1988, Term-weighting approaches in automatic text retrieval; Bradley & Terry 1952"
    readouts = ("head",)
    ranges = {"runs": Choice((1, 2, 3))}
    """Wang & Manning 2012 (Baselines and Bigrams) compare 1 and 2; the penalty is cross-validated in every case."""
    Options = BagOfWordsOptions

    def prepare(self, base: Base, context: TaskContext, options: BagOfWordsOptions) -> Plan:
        kind = context.task.kind
        if kind not in KINDS:
            why = "each row has options of its own" if kind == "choose" else "the answer is written"
            raise Unsupported(f"a bag of words gives labels that all rows share, and here {why}: use zero_shot or lora")
        if kind == "classify" and len(set(context.train.labels)) < 2:
            raise Unsupported("a linear model needs labels of at least two kinds: raise budget.labels")
        answer = Linear(context.task, options.runs)
        plan = Plan(answer=answer, save=answer.save, load=answer.load)

        def search(meter: Meter) -> str:
            rows = context.train.take(range(max(0, meter.room(len(context.train)))))
            # no watched module: the step has seconds and examples, and neither tokens nor FLOPs of a model
            with meter.step(("bag of words", 1, 0, 0), len(rows)), one_thread():
                plan.notes.append(fitted(answer, rows, options.c, context.seed))
            plan.labels_used = len(rows)
            plan.created = plan.trained = answer.weight.size + answer.bias.size
            if meter.budget is not None and len(rows) < len(context.train):
                return meter.budget.axis  # it converged, on fewer rows than there are labels
            return "converged"

        plan.search = search
        return plan


def one_thread() -> AbstractContextManager[Any]:
    """Linear algebra in one thread: vectors of words are sparse, and threads that wait for each other cost more than
    they save (the fit of 512 pairs: 3 seconds, and above a minute with two on a busy machine)."""
    from threadpoolctl import threadpool_limits

    limited: AbstractContextManager[Any] = threadpool_limits(1)
    return limited


@dataclass
class Linear:
    """A linear model on TF-IDF vectors, as far as it is fitted."""

    task: Task
    runs: int
    vectorizer: Any = None
    weight: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    """(labels, runs of words); on pairs (1, runs of words): the reward of an answer."""
    bias: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """(labels,); on pairs none."""
    truncated: int = 0
    """Nothing is ever cut."""

    def predict(self, fields: Sequence[Mapping[str, str]], meter: Meter) -> np.ndarray:
        """Float64 log-odds (rows, labels), up to what all labels of a row share; on pairs the two rewards."""
        if not fields:
            return np.zeros((0, len(self.task.labels)))
        with meter.step(("bag of words", 1, 0, 0), len(fields)):
            return self.scores(self.vectors(fields))

    def vectors(self, fields: Sequence[Mapping[str, str]]) -> list[Any]:
        """Sparse TF-IDF vectors of length 1, (rows, runs of words); on pairs one set for each answer."""
        return [self.vectorizer.transform(texts) for texts in self.texts(fields)]

    def texts(self, fields: Sequence[Mapping[str, str]]) -> list[Sequence[Mapping[str, str]]]:
        """What is counted. A prompt, which both answers of a pair share, has no say in which is preferred."""
        if self.task.kind != "prefer":
            return [fields]
        return [[{"answer": row[name]} for row in fields] for name in ANSWERS]

    def scores(self, vectors: Sequence[Any]) -> np.ndarray:
        """What `predict` gives, from vectors."""
        if self.task.kind == "prefer":
            return np.concatenate([one @ self.weight.T for one in vectors], axis=1)
        out: np.ndarray = vectors[0] @ self.weight.T + self.bias
        return out

    def empty(self, **vocabulary: Any) -> Any:
        """A vectorizer that counts each field's runs of words apart."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        return TfidfVectorizer(analyzer=lambda row: list(runs_of(row, self.runs)), **vocabulary)

    def through(self, template: Template) -> Linear:
        """There is no prompt."""
        raise Unsupported("a bag of words reads the bare text, which no prompt can change: use zero_shot or lora")

    def save(self, folder: Path) -> None:
        """The runs of words in the order of their columns, and the numbers."""
        from safetensors.numpy import save_file

        names = self.vectorizer.get_feature_names_out().tolist()
        told = {"longest": self.runs, "runs": names}
        (folder / FILES[0]).write_text(json.dumps(told, ensure_ascii=False), encoding="utf-8")
        numbers = {"idf": self.vectorizer.idf_, "weight": self.weight, "bias": self.bias}
        save_file({name: np.ascontiguousarray(of, dtype=np.float64) for name, of in numbers.items()}, folder / FILES[1])

    def load(self, folder: Path) -> None:
        """Take back what `save` wrote."""
        from safetensors.numpy import load_file

        told = json.loads((folder / FILES[0]).read_text(encoding="utf-8"))
        numbers = load_file(folder / FILES[1])
        self.runs, self.weight, self.bias = told["longest"], numbers["weight"], numbers["bias"]
        self.vectorizer = self.empty(vocabulary=told["runs"])
        self.vectorizer.idf_ = numbers["idf"]


def runs_of(row: Mapping[str, str], longest: int) -> Sequence[str]:
    """Every run of up to `longest` words of each field, with the field's name in front."""
    from bench.data.overlap import words_of

    found = []
    for name, text in row.items():
        words = words_of(text)
        for length in range(1, longest + 1):
            found += [f"{name}: {' '.join(words[i : i + length])}" for i in range(len(words) - length + 1)]
    return found


def fitted(answer: Linear, rows: Rows, c: float | None, seed: int) -> str:
    """Fit to labelled rows, with the penalty cross-validation prefers where none is given; what was done, in words.

    Raises `Unsupported` where the rows hold too little.
    """
    if len(rows) == 0 or (answer.task.kind == "classify" and len(set(rows.labels)) < 2):
        raise Unsupported("the budget ended before labels of two kinds were read: raise it")
    chosen = ""
    if c is None:
        c, chosen = cross_validated(answer.task, answer.runs, rows, seed)
    counted(answer, rows)
    iterations = solved(answer, answer.vectors(rows.fields), rows.labels, c)
    state = "converged" if iterations < MOST_ITERATIONS else "did NOT converge"
    runs = f"{answer.weight.shape[1]:,} runs of words"
    return f"the linear model on {runs} {state} after {iterations} iterations (C={c:g}{chosen})"


def counted(answer: Linear, rows: Rows) -> None:
    """Learn the runs of words of these rows and how rare each is."""
    answer.vectorizer = answer.empty()
    try:
        answer.vectorizer.fit([row for texts in answer.texts(rows.fields) for row in texts])
    except ValueError as error:  # scikit-learn's "empty vocabulary"
        raise Unsupported("no labelled text holds a word, so there is nothing to count: use lora or frozen") from error


def solved(answer: Linear, vectors: Sequence[Any], given: Sequence[int], c: float) -> int:
    """Logistic regression to convergence on rows whose words are counted; its iterations."""
    from scipy.sparse import vstack
    from sklearn.linear_model import LogisticRegression

    labels, pairs = np.asarray(given), answer.task.kind == "prefer"
    model = LogisticRegression(C=c, max_iter=MOST_ITERATIONS, tol=1e-8, fit_intercept=not pairs)
    if pairs:
        # every pair in both orders at half its weight: the loss of one order, whichever answer stood first
        ahead = vectors[0] - vectors[1]
        model.fit(vstack([ahead, -ahead]), np.concatenate([1 - labels, labels]), np.full(2 * len(labels), 0.5))
        answer.weight, answer.bias = model.coef_, np.zeros(0)
        return int(np.max(model.n_iter_))
    model.fit(vectors[0], labels)
    weight, bias = np.zeros((len(answer.task.labels), vectors[0].shape[1])), np.full(len(answer.task.labels), UNSEEN)
    if len(model.classes_) == 2:  # scikit-learn keeps one row for two classes: log-odds of the second
        weight[model.classes_[1]], bias[model.classes_] = model.coef_[0], [0.0, model.intercept_[0]]
    else:
        weight[model.classes_], bias[model.classes_] = model.coef_, model.intercept_
    answer.weight, answer.bias = weight, bias
    return int(np.max(model.n_iter_))


def cross_validated(task: Task, runs: int, rows: Rows, seed: int) -> tuple[float, str]:
    """The penalty under which held-out labels are likeliest, and how it was found, in words.

    Words are counted anew in every fold. Where a label has a single row there is nothing to hold back.
    """
    from sklearn.model_selection import KFold, StratifiedKFold

    pairs = task.kind == "prefer"
    least = len(rows) if pairs else min(rows.labels.count(label) for label in set(rows.labels))
    folds = min(FOLDS, least)
    if folds < 2:
        return PLAIN, ": too few labels to choose it"
    cut = (KFold if pairs else StratifiedKFold)(folds, shuffle=True, random_state=seed % 2**32)
    losses = np.zeros(len(STRENGTHS))
    for trained, held in cut.split(np.zeros(len(rows)), rows.labels):
        one, out = Linear(task, runs), rows.take(held.tolist())
        inside = rows.take(trained.tolist())
        counted(one, inside)
        fit, asked = one.vectors(inside.fields), one.vectors(out.fields)
        for i, c in enumerate(STRENGTHS):
            solved(one, fit, inside.labels, c)
            losses[i] += log_loss(one.scores(asked), out.labels)
    return STRENGTHS[int(losses.argmin())], f", chosen by {folds}-fold cross-validation"


def log_loss(scores: np.ndarray, labels: Sequence[int]) -> float:
    """Summed negative log-probability of the labels, nats."""
    from scipy.special import log_softmax

    return -float(log_softmax(scores, axis=-1)[np.arange(len(labels)), labels].sum())


strategy = BagOfWords()
