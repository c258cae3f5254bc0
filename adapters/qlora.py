"""QLoRA: LoRA on a base whose linear layers are held in 4 bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from bench.space import Log
from bench.strategy import Options, Plan, Strategy, TaskContext

if TYPE_CHECKING:
    from bench.models.base import Base


class QLoRAOptions(Options):
    """Options of `qlora`; those PEFT and bitsandbytes have carry their names."""

    lr: float = Field(2e-4, gt=0)
    """Peak learning rate. Published: 1e-4 to 2e-4 (Dettmers et al. 2023, table 9)."""
    r: int = Field(8, ge=1)
    """Rank of the factors."""
    lora_alpha: int = Field(16, ge=1)
    """The update is scaled by lora_alpha / r."""
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the factors' input (Dettmers et al. 2023: 0.05 to 0.1)."""
    target_modules: str | list[str] = "all-linear"
    """Layers that get factors (Dettmers et al. 2023, figure 2: every linear layer)."""
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = "nf4"
    """The 4-bit numbers: quantiles of a normal distribution, or a float."""
    bnb_4bit_use_double_quant: bool = True
    """Quantise the scales too."""


class QLoRA(Strategy):
    """Trains B and A of dequantised(W) + (alpha / r) B A (Dettmers et al. 2023, equation 5)."""

    family = "reparametrisation"
    trains = "low-rank factors beside 4-bit weights"
    parameters = "r (in + out) a linear layer"
    memory = "the linear layers at 4.13 bits a weight (4.5 without double quantisation), the rest and training as LoRA"
    places_base = True
    paper = "Dettmers et al. 2023, QLoRA: Efficient Finetuning of Quantized LLMs"
    ranges = {"lr": Log(1e-4, 2e-4)}
    """1e-4 to 2e-4 (Dettmers et al. 2023, table 9)."""
    Options = QLoRAOptions

    def prepare(self, base: Base, context: TaskContext, options: QLoRAOptions) -> Plan:
        import torch
        from peft import LoraConfig

        from bench.models.piecewise import place
        from bench.models.quantise import compute_dtype, to_4bit
        from bench.train.plans import peft_plan

        device, double = torch.device(context.device), options.bnb_4bit_use_double_quant
        names = to_4bit(base.module, options.bnb_4bit_quant_type, double, compute_dtype(device), device)
        place(base.module, device)  # what is left: embeddings, norms, the LM head
        base.module.is_loaded_in_4bit = True  # type: ignore[assignment]  # PEFT asks the model before it looks at layers
        config = LoraConfig(
            r=options.r,
            lora_alpha=options.lora_alpha,
            lora_dropout=options.lora_dropout,
            target_modules=options.target_modules,
        )
        plan = peft_plan(base, context, config, options.lr)
        plan.paged = device.type == "cuda"
        plan.notes.append(f"{len(names)} linear layers in {options.bnb_4bit_quant_type}, multiplied in 16 bits")
        return plan


strategy = QLoRA()
