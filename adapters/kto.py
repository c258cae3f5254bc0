"""KTO: a policy learns from answers judged good or bad one by one, which need not come in pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from bench.space import Log
from bench.strategy import Needs, Plan, Strategy, TaskContext

from .dpo import PreferenceOptions, supervised_plan

if TYPE_CHECKING:
    import torch

    from bench.models.base import Base
    from bench.train.policies import Pairs


class KTOOptions(PreferenceOptions):
    """Options of `kto`."""

    desirable_weight: float = Field(1.0, ge=0)
    """Weight of good answers (the paper's lambda_D)."""
    undesirable_weight: float = Field(1.0, ge=0)
    """Weight of bad answers (its lambda_U)."""


class KTO(Strategy):
    """1 - sigmoid(beta (log-ratio - z)) of good answers, 1 - sigmoid(beta (z - log-ratio)) of bad ones; z stands for
    the policy's divergence from the reference (Ethayarajh et al. 2024, equation 8)."""

    family = "preference tuning"
    trains = "low-rank factors, on answers or label words judged one by one"
    parameters = "r (in + out) a linear layer"
    memory = "as dpo"
    paper = "Ethayarajh et al. 2024, KTO: Model Alignment as Prospect Theoretic Optimization"
    needs = Needs(kinds=frozenset(("causal",)), pairs=True)
    readouts = ("verbalizer",)
    ranges = {"lr": Log(5e-5, 1e-3)}
    """As dpo's."""
    Options = KTOOptions

    def prepare(self, base: Base, context: TaskContext, options: KTOOptions) -> Plan:
        import torch

        from bench.train.policies import preferring_plan
        from bench.train.preference import kto, kto_reference_point

        def loss(pairs: Pairs) -> torch.Tensor:
            policy = torch.cat([pairs.chosen, pairs.rejected])
            reference = torch.cat([pairs.reference_chosen, pairs.reference_rejected])
            good = torch.arange(len(policy), device=policy.device) < len(pairs.chosen)
            # The paper's z has answers of other prompts. Here a batch's own answers stand in: with prompts as alike as
            # ours they cost no forward of their own, and a prompt without text has no other.
            point = kto_reference_point(policy, reference)
            return kto(
                policy, reference, good, point, options.beta, options.desirable_weight, options.undesirable_weight
            )

        plan = supervised_plan(base, context, options)
        return preferring_plan(base, context, plan, loss, options.beta, options.supervised, options.lr)


strategy = KTO()
