"""Feature extraction: the model is read once, a linear probe on its features is solved to convergence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from bench.config.schema import Task
from bench.space import Log, Space
from bench.strategy import Needs, Options, Plan, Strategy, TaskContext, Unsupported

if TYPE_CHECKING:
    import numpy as np

    from bench.budget import Meter
    from bench.models.base import Base
    from bench.score.features import Shelf
    from bench.score.heads import HeadReader


class FrozenOptions(Options):
    """Options of `frozen`."""

    c: float = Field(0.1, gt=0)
    """Inverse strength of the probe's L2 penalty, on standardised features."""
    top_layers: int = Field(0, ge=0)
    """Blocks from the top that train, by gradient, with the head. 0: none, and the probe is solved exactly."""
    lr: float = Field(5e-5, gt=0)
    """Peak learning rate of top layers, where some train. Published: 2e-5 to 5e-5 (Devlin et al. 2019)."""


class Frozen(Strategy):
    """Features once, then logistic regression; or the top blocks and a head by gradient."""

    family = "feature extraction"
    trains = "a linear probe on frozen features"
    parameters = "C d + C"
    memory = "the weights and one feature vector a row; gradients only where top layers train"
    paper = "Alain & Bengio 2017, Understanding intermediate layers using linear classifier probes"
    needs = Needs(labels=True, continues=True)
    readouts = ("head",)
    Options = FrozenOptions

    def seeded(self, options: FrozenOptions) -> bool:
        return True  # the labels are drawn by seed

    def space(self, options: FrozenOptions, task: Task) -> Space:
        """The probe's penalty, a part of the twelve decades swept by Radford et al. 2021 (appendix A.3); or the rate of
        top layers (Devlin et al. 2019)."""
        return {"lr": Log(2e-5, 5e-5)} if options.top_layers else {"c": Log(1e-3, 10.0)}

    def prepare(self, base: Base, context: TaskContext, options: FrozenOptions) -> Plan:
        from bench.models.parts import freeze
        from bench.score.heads import HeadReader

        reader = HeadReader(base, context)
        freeze(base.module)
        if options.top_layers:
            return top_layers_plan(base, context, reader, options)
        if len(set(context.train.labels)) < 2:
            raise Unsupported("a probe needs labels of at least two kinds: raise budget.labels")
        return probe_plan(context, reader, options)


def probe_plan(context: TaskContext, reader: HeadReader, options: FrozenOptions) -> Plan:
    """One pass over the labelled rows, then a convex problem."""
    from bench.models.parts import count
    from bench.score.features import OnFeatures, Shelf
    from bench.train.plans import head_of

    module, head, shelf = reader.target(), head_of(reader), Shelf(context.features)
    plan = Plan(
        answer=OnFeatures(module, reader, shelf),
        save=head.save,
        load=head.load,
        seen=[module],
        created=count(list(reader.head.parameters())),
        trained=count(list(reader.head.parameters())),
    )

    def search(meter: Meter) -> str:
        features, labels = features_of(context, reader, shelf, meter)
        plan.labels_used = len(labels)
        plan.notes.append(solve(reader, features, labels, options.c))
        if meter.budget is not None and len(labels) < len(context.train):
            return meter.budget.axis  # the probe converged, on fewer rows than there are labels
        return "converged"

    plan.search = search
    return plan


def features_of(context: TaskContext, reader: HeadReader, shelf: Shelf, meter: Meter) -> tuple[np.ndarray, list[int]]:
    """Pooled features of as many labelled rows as the budget allows, (rows, width), and their labels."""
    import torch

    from bench.score.adapted import length_sorted

    module = reader.target().eval()
    encoded = reader.encode(context.train.fields)
    parts, labels = [], []
    with torch.inference_mode():
        for rows in length_sorted(encoded):
            rows = rows[: max(0, meter.room(len(rows)))]
            if not rows:
                break
            batch = reader.collate([encoded[i] for i in rows])
            if not meter.affords(meter.cost(len(rows), batch.tokens, batch.shape)):
                break
            with meter.step(batch.shape, len(rows)):
                parts.append(shelf.features(reader, module, batch, meter).float().cpu())
            labels += [context.train.labels[i] for i in rows]
    if len(set(labels)) < 2:
        raise Unsupported("the budget ended before labels of two kinds were read: raise it")
    return torch.cat(parts).double().numpy(), labels


def solve(reader: HeadReader, x: np.ndarray, labels: list[int], c: float) -> str:
    """Logistic regression to convergence, written into the head with the standardisation folded in."""
    import numpy as np
    import torch
    from sklearn.linear_model import LogisticRegression

    mean, scale = x.mean(0), x.std(0) + 1e-6
    model = LogisticRegression(C=c, max_iter=10_000, tol=1e-8).fit((x - mean) / scale, labels)
    weight, bias = np.zeros((reader.head.out_features, x.shape[1])), np.full(reader.head.out_features, -30.0)
    if len(model.classes_) == 2:  # scikit-learn keeps one row for two classes: log-odds of the second
        weight[model.classes_[1]], bias[model.classes_] = model.coef_[0], [0.0, model.intercept_[0]]
    else:
        weight[model.classes_], bias[model.classes_] = model.coef_, model.intercept_
    folded = weight / scale
    with torch.no_grad():
        reader.head.weight.copy_(torch.from_numpy(folded))
        reader.head.bias.copy_(torch.from_numpy(bias - folded @ mean))
    iterations = int(np.max(model.n_iter_))
    state = "converged" if iterations < 10_000 else "did NOT converge"
    return f"the probe {state} after {iterations} iterations of L-BFGS (C={c})"


def top_layers_plan(base: Base, context: TaskContext, reader: HeadReader, options: FrozenOptions) -> Plan:
    """The last blocks, the final norm and the head train by gradient."""
    from bench.models.parts import blocks, final_norm
    from bench.train.plans import as_tensors, gradient_plan

    module = reader.target()
    stack = blocks(module)
    if options.top_layers > len(stack):
        raise Unsupported(f"top_layers={options.top_layers}, but this model has {len(stack)} blocks: use full")
    top = list(stack)[-options.top_layers :]
    norm = final_norm(module)
    parts = [*top, *([norm] if norm is not None else [])]
    parameters = [p for part in parts for p in part.parameters()]
    names = {id(p): n for n, p in module.named_parameters()}
    stored = as_tensors("top_layers.safetensors", {names[id(p)]: p for p in parameters})
    return gradient_plan(base, context, module, reader, parameters, options.lr, stored)


strategy = Frozen()
