"""Few-shot prompting (in-context learning): labelled demonstrations in front of the question."""

from __future__ import annotations

import zlib
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from bench.config.schema import Task
from bench.space import Choice, Space
from bench.strategy import Needs, Options, Plan, Strategy, TaskContext, Unsupported

if TYPE_CHECKING:
    from bench.data.rows import Rows
    from bench.models.base import Base


DRAWS = Choice(tuple(range(10)))
"""Draws of demonstrations, and orders of them, to choose from."""


class FewShotOptions(Options):
    """Options of `few_shot`."""

    k: Annotated[int, Field(ge=1)] | Literal["all"] = 8
    """Demonstrations, as evenly over the labels as k allows; `all`: every label of the budget."""
    selection: Literal["random", "retrieved"] = "random"
    """`random`: drawn by seed, the same for every item. `retrieved`: for each item the most alike (TF-IDF cosine)
    of each label among all labelled rows, the most alike last (Liu et al. 2022)."""
    demonstration_labels: Literal["gold", "random"] = "gold"
    """`random`: each demonstration shows a label drawn uniformly, whatever it is; the control that tells how much
    the labels of demonstrations teach (Min et al. 2022, section 4)."""
    calibrate: bool = False
    """Contextual calibration (Zhao et al. 2021)."""
    template: int = Field(0, ge=0)
    """Which of the task's templates asks, from 0."""
    demonstrations: int = Field(0, ge=0)
    """Which draw of demonstrations, from 0: another number shows other ones (`selection: random`)."""
    order: int = Field(0, ge=0)
    """In which order they stand: 0 as drawn, another number shuffles them (Lu et al. 2022; `selection: random`)."""


class FewShot(Strategy):
    """Nothing is trained; k labels are read (all of them where demonstrations are retrieved)."""

    family = "prompting"
    trains = "nothing"
    parameters = "0"
    memory = "the weights and the demonstrations' keys and values; no gradients"
    paper = "Brown et al. 2020, Language Models are Few-Shot Learners; Zhao et al. 2021, Calibrate Before Use"
    needs = Needs(kinds=frozenset(("causal", "seq2seq")), train_labels=1, labels=True, writes=True, continues=True)
    readouts = ("verbalizer",)
    Options = FewShotOptions

    def spends(self, options: Any) -> bool:
        return False  # nothing trains

    def space(self, options: FewShotOptions, task: Task) -> Space:
        """Template, demonstrations, their order and calibration (Zhao et al. 2021, section 3; Lu et al. 2022); where
        answers are written the order alone of the last three."""
        templates = Choice(tuple(range(len(task.templates))))
        if task.written:
            return {"template": templates, "order": DRAWS}
        drawn = {} if options.selection != "random" else {"demonstrations": DRAWS, "order": DRAWS}
        ways = (False,) if task.continued else (False, True)
        return {"template": templates, **drawn, "calibrate": Choice(ways)}

    def prepare(self, base: Base, context: TaskContext, options: FewShotOptions) -> Plan:
        from bench.score.adapted import Calibrated

        context = context.with_template(options.template)
        k = len(context.train) if options.k == "all" else options.k
        if k > len(context.train):
            raise Unsupported(f"k={k} demonstrations, but {len(context.train)} labels: raise budget.labels or lower k")
        if context.task.written:
            return written(base, context, options, k)
        shown: Any = answering(base, context, options)
        pool = context.train if options.demonstration_labels == "gold" else mislabelled(context)
        random = options.selection == "random"

        def redrawn(number: int) -> Any:
            """With the draw and the order `number` places after the cell's own."""
            other = copy(shown)
            other.rows = chosen(context, pool, k, options.demonstrations + number, options.order + number)
            return Calibrated(other, context.task.fields) if options.calibrate else other

        notes = []
        if random:
            shown.rows = chosen(context, pool, k, options.demonstrations, options.order)
            notes.append(f"demonstrations by label: {[shown.rows.labels.count(c) for c in range(context.classes)]}")
        else:
            shown.choose = Retriever(pool, k, context.classes)
        rows = SaveRows(shown.rows)
        return Plan(
            answer=Calibrated(shown, context.task.fields) if options.calibrate else shown,
            save=rows,
            load=rows.drawn_again,
            seen=[base.module],
            labels_used=k if random else len(context.train),
            notes=notes,
            redrawn=redrawn if random else None,
        )


def answering(base: Base, context: TaskContext, options: FewShotOptions) -> Any:
    """What answers with demonstrations in front, none chosen yet. Raises `Unsupported` for what texts of lm-eval cannot
    be asked."""
    from bench.score.continued import shown
    from bench.score.demonstrations import Demonstrations
    from bench.score.readers import VerbalizerReader

    harness = context.task.harness
    if harness is None:
        return Demonstrations(VerbalizerReader(base, context), base.module, context)
    if options.calibrate:
        raise Unsupported("calibrate divides by what an empty prompt gives each label, and here rows hold the answers")
    if options.demonstration_labels == "random" and not harness.shared:
        raise Unsupported("demonstration_labels=random needs options that all rows share: use gold")
    return shown(base, context)


def written(base: Base, context: TaskContext, options: FewShotOptions, k: int) -> Plan:
    """The plan where the model writes its answer: `k` rows with their targets in front. Raises `Unsupported` for what
    needs labels."""
    from bench.score.replies import ReplyReader, Told

    if options.calibrate or options.selection != "random" or options.demonstration_labels != "gold":
        raise Unsupported("where answers are written, few_shot has random demonstrations with their own answers only")
    rows = shuffled(context.train.take(range(k)), another(context.seed, options.order) if options.order else None)
    told = Told(base.module, ReplyReader(base, context), rows)
    save = SaveRows(rows)
    return Plan(answer=told, save=save, load=save.drawn_again, seen=[base.module], labels_used=k)


def chosen(context: TaskContext, pool: Rows, k: int, draw: int, order: int) -> Rows:
    """`k` demonstrations of this draw, in this order, with the labels they have in `pool`.

    They are chosen by their gold labels, so that both labellings show the same texts.
    """
    from bench.data.draws import class_balanced

    drawn = class_balanced(context.train, k, another(context.seed, draw), context.classes)
    rows = shuffled(drawn, another(context.seed, order) if order else None)
    return pool.take([pool.index.index(i) for i in rows.index])


def another(seed: int, number: int) -> int:
    """The cell's own seed for 0; for another number one of its own."""
    return seed if number == 0 else zlib.crc32(f"{seed} {number}".encode())


def shuffled(rows: Rows, seed: int | None) -> Rows:
    """The rows in an order drawn by `seed`; None: as they are."""
    import numpy as np

    return rows if seed is None else rows.take(np.random.default_rng(seed).permutation(len(rows)).tolist())


def mislabelled(context: TaskContext) -> Rows:
    """The labelled rows with labels drawn uniformly by seed."""
    import numpy as np

    from bench.data.rows import Rows

    train = context.train
    drawn = np.random.default_rng([context.seed % 2**64, 0x5EED]).integers(context.classes, size=len(train))
    return Rows(train.fields, [int(label) for label in drawn], train.index)


class SaveRows:
    """Stores which rows the demonstrations are (row numbers, not text)."""

    def __init__(self, rows: Rows | None) -> None:
        self.rows = rows

    def __call__(self, folder: Path) -> None:
        if self.rows is not None:
            (folder / "demonstrations.json").write_text(str(list(self.rows.index)))

    def drawn_again(self, folder: Path) -> None:
        """A freshly prepared plan has drawn the same rows: seed and labels decide them."""


class Retriever:
    """For an item, the k // classes most alike labelled rows of each label, the most alike last."""

    def __init__(self, train: Rows, k: int, classes: int) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self.train, self.k, self.classes = train, k, classes
        self.vectorizer = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
        self.matrix = self.vectorizer.fit_transform([" ".join(f.values()) for f in train.fields])

    def __call__(self, fields: dict[str, str]) -> Rows:
        import numpy as np

        from bench.data.rows import Rows

        alike = (self.matrix @ self.vectorizer.transform([" ".join(fields.values())]).T).toarray()[:, 0]
        order = np.argsort(-alike, kind="stable")
        labels = np.array(self.train.labels)
        ranked: list[list[Any]] = [[i for i in order if labels[i] == c] for c in range(self.classes)]
        chosen: list[int] = []
        while len(chosen) < self.k and any(ranked):
            # one of each label a round, so that the labels stay as even as k allows
            heads = sorted((r.pop(0) for r in ranked if r), key=lambda i: -alike[i])
            chosen += heads[: self.k - len(chosen)]
        chosen.sort(key=lambda i: alike[i])
        pick = [int(i) for i in chosen]
        return Rows(
            fields=[self.train.fields[i] for i in pick],
            labels=[self.train.labels[i] for i in pick],
            index=[self.train.index[i] for i in pick],
        )


strategy = FewShot()
