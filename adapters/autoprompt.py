"""AutoPrompt: a gradient-guided search for trigger tokens, with label words chosen by a probe."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from bench.space import Choice
from bench.strategy import Needs, Options, Plan, Strategy, TaskContext, Unsupported

if TYPE_CHECKING:
    import torch

    from bench.budget import Meter
    from bench.models.base import Base
    from bench.score.batch import Encoded
    from bench.score.triggers import TriggerReader


class AutoPromptOptions(Options):
    """Options of `autoprompt`."""

    num_triggers: int = Field(3, ge=1)
    """Trigger tokens after the prompt (Shin et al. 2020, appendix A: 3 to 10)."""
    candidates: int = Field(10, ge=1)
    """Tokens tried in place of one trigger at every step (Shin et al. 2020, section 3: 10 to 100)."""
    label_words: Literal["selected", "verbalizer"] = "selected"
    """`selected`: the tokens a probe finds most telling; `verbalizer`: the first token of the template's words."""
    words_per_label: int = Field(3, ge=1)
    """Tokens selected for each label (Shin et al. 2020, section 3: 1 to 5 and more)."""


class AutoPrompt(Strategy):
    """Swaps one trigger at a time for the candidate of largest first-order gain that lowers the loss (section 2.2)."""

    family = "prompting"
    trains = "nothing; trigger tokens and label words are searched"
    parameters = "0"
    memory = "the weights, one batch's activations and the gradient of its input embeddings"
    paper = "Shin et al. 2020, AutoPrompt: Eliciting Knowledge from Language Models"
    needs = Needs(kinds=frozenset(("causal", "masked")), train_labels=2, labels=True)
    readouts = ("verbalizer",)
    ranges = {"num_triggers": Choice((3, 5, 10)), "words_per_label": Choice((1, 3, 5))}
    """Triggers 3 to 10, words of a label 1 to 5 (Shin et al. 2020, section 3 and appendix A)."""
    Options = AutoPromptOptions

    def prepare(self, base: Base, context: TaskContext, options: AutoPromptOptions) -> Plan:
        from bench.models.parts import freeze
        from bench.score.adapted import Adapted
        from bench.score.readers import VerbalizerReader, make_reader
        from bench.score.triggers import TriggerReader

        if len(set(context.train.labels)) < context.classes:
            raise Unsupported("label words are chosen from examples of every label: raise budget.labels")
        freeze(base.module)
        inner = make_reader(base, context)
        assert isinstance(inner, VerbalizerReader)
        start = inner.tokens(" the")[:1] * options.num_triggers
        firsts = [word[:1] for word in inner.words]
        if options.label_words == "verbalizer" and len({tuple(word) for word in firsts}) < len(firsts):
            raise Unsupported("two label words begin with the same token: choose other words, or label_words=selected")
        reader = TriggerReader(inner, start, firsts)
        search = Search(base, context, reader, options)
        plan = Plan(answer=Adapted(base.module, reader), save=search.save, load=search.load, seen=[base.module])
        plan.search, search.notes = search, plan.notes
        return plan


class Search:
    """Label words first, then triggers until the budget is spent."""

    def __init__(self, base: Base, context: TaskContext, reader: TriggerReader, options: AutoPromptOptions) -> None:
        self.base, self.context, self.reader, self.options = base, context, reader, options
        self.notes: list[str] = []

    def __call__(self, meter: Meter) -> str:
        import torch

        assert meter.budget is not None

        self.base.module.eval()
        encoded = self.reader.encode(self.context.train.fields)
        if self.options.label_words == "selected":
            self.select(encoded, meter)
        banned = torch.tensor(sorted(set(self.base.tokenizer.all_special_ids)))
        tried = kept = 0
        for position, first, second in self.rounds(encoded):
            if not self.affordable(encoded, first, second, meter):
                break
            gain = self.gains(encoded, first, position, meter)
            gain[banned] = -torch.inf
            kept += self.swap(encoded, second, position, gain, meter)
            tried += 1
        self.notes.append(f"{kept} of {tried} searched triggers were exchanged before the budget ended")
        return meter.budget.axis

    def rounds(self, encoded: list[Encoded]) -> Iterator[tuple[int, list[int], list[int]]]:
        """Endless: which trigger, the rows its gradient is taken on, and the rows the candidates are compared on."""
        from bench.train.order import batches

        rows = batches([e.length for e in encoded], self.context.batch, self.context.seed)
        step = 0
        while True:
            yield step % self.options.num_triggers, next(rows), next(rows)
            step += 1

    def affordable(self, encoded: list[Encoded], first: list[int], second: list[int], meter: Meter) -> bool:
        """Whether one whole round fits: a gradient, and a comparison of the candidates with the present trigger."""
        times = self.options.candidates + 1
        a, b = (self.reader.collate([encoded[i] for i in rows]) for rows in (first, second))
        cost = meter.cost(len(first), 3 * a.tokens, ("gradient", *a.shape))
        cost += times * meter.cost(len(second), b.tokens, ("compare", *b.shape))
        return meter.affords(cost)

    def gains(self, encoded: list[Encoded], rows: list[int], position: int, meter: Meter) -> torch.Tensor:
        """First-order fall of the loss for every token put at `position`, (vocabulary,) (equation 2)."""
        import torch

        batch = self.reader.collate([encoded[i] for i in rows])
        labels = torch.tensor([self.context.train.labels[i] for i in rows], device=self.reader.inner.device)
        kept: list[torch.Tensor] = []

        def watch(_: Any, __: Any, output: torch.Tensor) -> torch.Tensor:
            kept.append(output.detach().requires_grad_(True))
            return kept[-1]

        table: Any = self.base.module.get_input_embeddings()  # type: ignore[operator]
        handle = table.register_forward_hook(watch)
        try:
            with meter.step(("gradient", *batch.shape), len(rows)):
                loss = self.reader.loss(self.base.module, batch, labels)
                loss.backward()  # not autograd.grad: torch's FLOP counter cannot watch that one; the weights are frozen
        finally:
            handle.remove()
        gradient = kept[0].grad
        assert gradient is not None
        at = batch.extra["first"].to(gradient.device) + position
        mean = gradient[torch.arange(len(rows), device=gradient.device), at].mean(0)
        return -(table.weight.detach() @ mean).float().cpu()

    def swap(self, encoded: list[Encoded], rows: list[int], position: int, gain: torch.Tensor, meter: Meter) -> int:
        """Try the best candidates on other rows; keep the best if it beats the present trigger. 1 if it did."""
        present = list(self.reader.triggers)
        options = [present]
        for token in gain.topk(min(self.options.candidates, len(gain))).indices.tolist():
            options.append([*present[:position], token, *present[position + 1 :]])
        losses = [self.loss(encoded, rows, triggers, meter) for triggers in options]
        best = losses.index(min(losses))
        self.reader.triggers[:] = options[best]
        return int(best > 0)

    def loss(self, encoded: list[Encoded], rows: list[int], triggers: list[int], meter: Meter) -> float:
        """Cross-entropy of these rows under these triggers."""
        import torch

        batch = self.reader.collate([encoded[i] for i in rows], triggers)
        labels = torch.tensor([self.context.train.labels[i] for i in rows], device=self.reader.inner.device)
        with torch.inference_mode(), meter.step(("compare", *batch.shape), len(rows)):
            return float(self.reader.loss(self.base.module, batch, labels))

    def select(self, encoded: list[Encoded], meter: Meter) -> None:
        """Label words: a probe learns labels from hidden states, then reads the output embeddings (section 2.3)."""
        import torch
        from sklearn.linear_model import LogisticRegression

        from bench.models.parts import output_head
        from bench.score.adapted import length_sorted

        features, labels = [], []
        for rows in length_sorted(encoded, len(self.reader.triggers) + 1):
            rows = rows[: max(0, meter.room(len(rows)))]
            batch = self.reader.collate([encoded[i] for i in rows]) if rows else None
            if batch is None or not meter.affords(meter.cost(len(rows), batch.tokens, ("probe", *batch.shape))):
                break
            with torch.inference_mode(), meter.step(("probe", *batch.shape), len(rows)):
                features.append(self.reader.hidden(self.base.module, batch).cpu())
            labels += [self.context.train.labels[i] for i in rows]
        if len(set(labels)) < self.context.classes:
            raise Unsupported("the budget ended before every label was read: raise it, or use label_words=verbalizer")
        head: Any = output_head(self.base)
        probe = LogisticRegression(max_iter=10_000).fit(torch.cat(features).double().numpy(), labels)
        telling = torch.tensor(probe.predict_proba(head.weight.detach().double().cpu().numpy())).log()
        telling[self.base.tokenizer.all_special_ids] = -torch.inf
        for label in range(self.context.classes):
            self.reader.label_tokens[label] = telling[:, label].topk(self.options.words_per_label).indices.tolist()
        words = [self.base.tokenizer.decode(tokens) for tokens in self.reader.label_tokens]
        self.notes.append(f"label words: {'; '.join(words)}")

    def save(self, folder: Path) -> None:
        """The prompt as token ids: all a user must keep."""
        found = {"triggers": self.reader.triggers, "label_tokens": self.reader.label_tokens}
        (folder / "prompt.json").write_text(json.dumps(found))

    def load(self, folder: Path) -> None:
        """Take the stored prompt."""
        found = json.loads((folder / "prompt.json").read_text())
        self.reader.triggers[:], self.reader.label_tokens[:] = found["triggers"], found["label_tokens"]


strategy = AutoPrompt()
