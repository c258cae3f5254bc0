"""AdaLoRA: the rank budget moves to the layers where it matters while training goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from bench.space import Log
from bench.strategy import Options, Plan, Strategy, TaskContext

if TYPE_CHECKING:
    import torch
    from torch import nn

    from bench.models.base import Base

STEPS = 1000
"""PEFT counts the schedule in steps; ours is this many parts of the budget, whatever its axis."""


class AdaLoRAOptions(Options):
    """Options of `adalora`; those PEFT has carry PEFT's names."""

    lr: float = Field(2e-3, gt=0)
    """Peak learning rate. Published: 5e-4 to 2.2e-3 on GLUE (Zhang et al. 2023, table 8)."""
    init_r: int = Field(12, ge=2)
    """Rank every layer starts with (Zhang et al. 2023: 1.5 times the target)."""
    target_r: int = Field(8, ge=1)
    """Mean rank at the end."""
    lora_alpha: int = Field(16, ge=1)
    """The update is scaled by lora_alpha / rank."""
    orth_reg_weight: float = Field(0.5, ge=0)
    """Weight of the term that keeps both factors orthogonal (Zhang et al. 2023, equation 4; 0.1 to 0.5)."""
    warm_share: float = Field(0.1, ge=0, lt=1)
    """Share of the budget before the ranks begin to fall (the paper's t_i)."""
    final_share: float = Field(0.3, ge=0, lt=1)
    """Share of the budget at its end with the final ranks (the paper's t_f)."""
    target_modules: str | list[str] = "all-linear"
    """Layers that get factors (Zhang et al. 2023, section 4.1: every weight matrix)."""

    @model_validator(mode="after")
    def coherent(self) -> AdaLoRAOptions:
        """Ranks fall, and there is time for it."""
        if self.init_r <= self.target_r:
            raise ValueError(f"init_r must be larger than target_r, got {self.init_r} and {self.target_r}")
        if self.warm_share + self.final_share >= 1:
            raise ValueError("warm_share and final_share must leave a part of the budget between them")
        return self


class AdaLoRA(Strategy):
    """Trains P, E, Q of W + P E Q and prunes entries of E by importance (Zhang et al. 2023, section 3)."""

    family = "reparametrisation"
    trains = "factors of the linear layers, their ranks shared out by importance"
    parameters = "init_r (in + out + 1) a linear layer at first, target_r on the mean at the end"
    memory = "as LoRA, and two running averages a trained parameter for the importance"
    paper = "Zhang et al. 2023, AdaLoRA: Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning"
    keeps_all = False
    ranges = {"lr": Log(5e-4, 2.2e-3)}
    """5e-4 to 2.2e-3 (Zhang et al. 2023, table 8)."""
    Options = AdaLoRAOptions

    def prepare(self, base: Base, context: TaskContext, options: AdaLoRAOptions) -> Plan:
        from peft import AdaLoraConfig

        from bench.train.plans import peft_plan

        config = AdaLoraConfig(
            init_r=options.init_r,
            target_r=options.target_r,
            lora_alpha=options.lora_alpha,
            orth_reg_weight=options.orth_reg_weight,
            tinit=round(options.warm_share * STEPS),
            tfinal=round(options.final_share * STEPS),
            total_step=STEPS,
            target_modules=options.target_modules,
        )
        plan = peft_plan(base, context, config, options.lr)
        assert plan.module is not None and plan.loss is not None
        module, fit = plan.module, plan.loss
        plan.loss = lambda batch, labels: fit(batch, labels) + options.orth_reg_weight * departure(module)
        plan.after_step = allocation = Allocation(module)
        plan.finish = allocation.finish
        plan.own_state, plan.restore = allocation.state, allocation.restore
        plan.seen = [module]  # PEFT's AdaLoRA goes around the base's own call, where hooks would be
        assert plan.load is not None
        plan.load = loaded(plan, plan.load)
        return plan


def loaded(plan: Plan, load: Callable[[Path], None]) -> Callable[[Path], None]:
    """Loading puts another PEFT model around the base: that one is watched from then on."""

    def then(folder: Path) -> None:
        from bench.score.adapted import Adapted

        load(folder)
        assert isinstance(plan.answer, Adapted)
        plan.seen = [plan.answer.module]

    return then


def departure(module: nn.Module) -> torch.Tensor:
    """How far the factors are from orthogonal: mean Frobenius norm of Q Q' - I and P' P - I over the factors.

    PEFT adds this term only where the model itself computes the loss (Zhang et al. 2023, equation 4, norms unsquared
    and averaged as PEFT has them).
    """
    import torch

    terms = []
    for name, p in module.named_parameters():
        if "lora_A" in name or "lora_B" in name:
            product = p @ p.T if "lora_A" in name else p.T @ p
            terms.append(torch.linalg.matrix_norm(product - torch.eye(len(product), dtype=p.dtype, device=p.device)))
    return torch.stack(terms).mean()


IMPORTANCE = ("ipt", "exp_avg_ipt", "exp_avg_unc")
"""What PEFT's rank allocator remembers of every factor."""


class Allocation:
    """PEFT's rank allocator driven by the share of the budget used, so that any axis reaches the final ranks."""

    def __init__(self, module: Any) -> None:
        self.model = module.base_model
        self.step = 0
        self.finalised = False

    @property
    def final(self) -> int:
        """The step of the final ranks."""
        config = self.model.peft_config["default"]
        return int(config.total_step - config.tfinal)

    def __call__(self, progress: float) -> None:
        """Called between `optimizer.step()` and `zero_grad()`: importance needs this step's gradients."""
        total = self.model.peft_config["default"].total_step
        # never back: where seconds bind, progress is an estimate, and ranks once cut are gone
        step = self.step = max(self.step, min(round(progress * total), total))
        if step >= self.final and not self.finalised:
            self.finish()
        else:
            # PEFT allocates for good where the step equals the final one: only once
            self.model.update_and_allocate(step + 1 if step == self.final else step)

    def state(self) -> dict[str, torch.Tensor]:
        """The importance of every triplet so far, and how far the allocation has come."""
        import torch

        allocator = self.model.rankallocator
        held = {f"{kind}/{name}": t for kind in IMPORTANCE for name, t in getattr(allocator, kind).items()}
        ranks = {f"ranknum/{n}": p for n, p in self.model.model.named_parameters() if n.endswith("ranknum.default")}
        return {**held, **ranks, "step": torch.tensor([self.step, self.finalised])}

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Go on from `state`."""
        step, finalised = state["step"].tolist()
        self.step, self.finalised = int(step), bool(finalised)
        parameters = dict(self.model.model.named_parameters())
        for key, tensor in state.items():
            kind, _, name = key.partition("/")
            if kind in IMPORTANCE:
                getattr(self.model.rankallocator, kind)[name] = tensor.to(parameters[name].device)
            elif kind == "ranknum":
                parameters[name].data.copy_(tensor)

    def finish(self) -> None:
        """The final ranks, if they were not reached: a budget may end before its last part."""
        if self.finalised:
            return
        self.finalised = True
        if not self.model.rankallocator.exp_avg_ipt:  # the very first step reached it: importance of this one
            self.model.rankallocator.update_ipt(self.model.model)
        self.model.update_and_allocate(self.final)


strategy = AdaLoRA()
