"""Losses on preferences beside TRL's own trainers: the same loss and gradients on the same batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tolerance import close

from bench.train.preference import (
    bradley_terry,
    dpo,
    implicit_reward,
    kl_per_token,
    kto,
    kto_reference_point,
    sequence_log_probability,
)

NO_TRL = "the losses are compared with the trainers of trl"


def tiny_llama(seed: int, rewards: bool = False) -> Any:
    """A random model of 64 tokens; far enough from uniform that two seeds disagree by nats."""
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

    torch.manual_seed(seed)
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_labels": 1}
    ends = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
    config = LlamaConfig(**sizes, **ends, num_attention_heads=2, initializer_range=0.15)
    return (LlamaForSequenceClassification if rewards else LlamaForCausalLM)(config)


def trainer(name: str, folder: Path, rows: list[dict[str, Any]], models: dict[str, Any], **options: Any) -> Any:
    """TRL's trainer of this name on these rows, with a tokenizer of 61 words; nothing is logged, saved or fetched."""
    trl = pytest.importorskip("trl", reason=NO_TRL)
    from datasets import Dataset
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    known = ["<pad>", "</s>", "<unk>", *map(str, range(61))]
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(known)}, "<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    quiet = {"report_to": "none", "disable_tqdm": True, "use_cpu": True, "bf16": False, "gradient_checkpointing": False}
    batch = {"per_device_train_batch_size": len(rows)}
    return getattr(trl, f"{name}Trainer")(
        **models,
        args=getattr(trl, f"{name}Config")(output_dir=str(folder), **quiet, **batch, **options),
        train_dataset=Dataset.from_list(rows),
        processing_class=PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>"),
    )


def batch_of(made: Any) -> dict[str, torch.Tensor]:
    """All of its rows, as its own collator pads them."""
    return made.data_collator(list(made.train_dataset))


def logp_of(model: Any, batch: dict[str, torch.Tensor], prefix: str = "") -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities and counts of a batch's responses, by this project."""
    ids, seen, response = (batch[f"{prefix}{key}"] for key in ("input_ids", "attention_mask", "completion_mask"))
    logits = model(input_ids=ids, attention_mask=seen).logits
    return sequence_log_probability(logits, ids.masked_fill(response == 0, -100))


def same_loss_and_gradients(made: Any, batch: dict[str, torch.Tensor], ours: torch.Tensor) -> None:
    """TRL's loss on this batch is ours, and it moves every weight of the model alike."""
    theirs = made.compute_loss(made.model, dict(batch))
    assert ours.item() == close(theirs.item())
    weights = [p for p in made.model.parameters() if p.requires_grad]
    pairs = [torch.autograd.grad(loss, weights) for loss in (theirs, ours)]
    assert max(float(g.abs().max()) for g in pairs[0]) > 1e-3
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(*pairs, strict=True))


PAIRS = [
    {"prompt": "1 2 3", "chosen": " 4 5", "rejected": " 6 7 8 9 10"},
    {"prompt": "11", "chosen": " 12 13 14 15", "rejected": " 16"},
    {"prompt": "20 21", "chosen": " 22 23 24", "rejected": " 25 26 27"},
]


def test_a_reward_model_has_the_loss_of_trl(tmp_path: Path) -> None:
    """Rewards of a model with one output, on pairs of unequal lengths."""
    made = trainer("Reward", tmp_path, PAIRS, {"model": tiny_llama(0, rewards=True)})
    batch = batch_of(made)
    rewards = made.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, 0]
    same_loss_and_gradients(made, batch, bradley_terry(*rewards.chunk(2)))


@pytest.mark.parametrize(
    ("name", "loss", "mean"), [("sigmoid", "sigmoid", False), ("sigmoid_norm", "sigmoid", True), ("ipo", "ipo", True)]
)
def test_dpo_has_the_loss_of_trl(tmp_path: Path, name: str, loss: Any, mean: bool) -> None:
    """Also its mean log-probabilities and implicit rewards; for IPO with lengths only, as TRL knows no other."""
    models = {"model": tiny_llama(0), "ref_model": tiny_llama(1)}
    made = trainer("DPO", tmp_path, PAIRS, models, loss_type=[name], beta=0.3)
    batch = batch_of(made)
    policy, counts = logp_of(made.model, batch)
    with torch.no_grad():
        reference, _ = logp_of(made.ref_model, batch)
    four = (*policy.chunk(2), *reference.chunk(2))
    chosen, rejected = counts.chunk(2)
    assert (chosen.tolist(), rejected.tolist()) == ([3, 5, 4], [6, 2, 4])  # with the end of the text
    same_loss_and_gradients(made, batch, dpo(*four, 0.3, loss, (chosen, rejected) if mean else None))
    said = made._metrics["train"]
    assert four[0].mean().item() == close(said["logps/chosen"][0])
    assert implicit_reward(four[1], four[3], 0.3).mean().item() == close(said["rewards/rejected"][0])


@pytest.mark.parametrize("labels", [[True, False, False, True], [True] * 4, [False] * 4])
def test_kto_has_the_loss_of_trl(tmp_path: Path, labels: list[bool]) -> None:
    """With either of two models as the policy, so that one reference point is cut at zero and the other is not."""
    texts = [("1 2 3", " 4 5"), ("11", " 12 13 14 15"), ("20 21", " 22"), ("30 31", " 32 33 34")]
    rows = [{"prompt": p, "completion": c, "label": y} for (p, c), y in zip(texts, labels, strict=True)]
    points = []
    for seed in (0, 1):
        models = {"model": tiny_llama(seed), "ref_model": tiny_llama(1 - seed)}
        made = trainer("KTO", tmp_path, rows, models, beta=0.3, desirable_weight=1.5, undesirable_weight=0.75)
        batch = batch_of(made)
        with torch.no_grad():
            mismatched = [logp_of(model, batch, "KL_")[0] for model in (made.model, made.ref_model)]
            reference, _ = logp_of(made.ref_model, batch)
        point = kto_reference_point(*mismatched)
        ours = kto(logp_of(made.model, batch)[0], reference, torch.tensor(labels), point, 0.3, 1.5, 0.75)
        same_loss_and_gradients(made, batch, ours)
        assert point.item() == close(made._metrics["train"]["kl"][0])
        points.append(point.item())
    assert min(points) == 0 < max(points)


def test_k3_is_the_penalty_of_trl(tmp_path: Path) -> None:
    """GRPO without any advantage is beta times the mean k3 over response tokens; it loads its reference from a folder."""
    policy = tiny_llama(0)
    tiny_llama(1).save_pretrained(tmp_path)
    policy.config._name_or_path = str(tmp_path)
    models = {"model": policy, "reward_funcs": lambda completions, **_: [0.0] * len(completions)}
    # by default the ratio to the sampling policy, 1 here, is a factor of the penalty and has a gradient of its own
    options = {"beta": 0.3, "loss_type": "bnpo", "num_generations": 2, "use_bias_correction_kl": False}
    made = trainer("GRPO", tmp_path, [{"prompt": "1 2"}] * 2, models, **options)
    made.current_gradient_accumulation_steps = 1
    ids = torch.randint(3, 64, (2, 6), generator=torch.Generator().manual_seed(0))
    response = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])

    def each(model: Any) -> torch.Tensor:
        return model(input_ids=ids).logits[:, 1:-1].log_softmax(-1).gather(-1, ids[:, 2:, None])[..., 0]

    with torch.no_grad():
        reference = each(made.ref_model)
    batch = {"prompt_ids": ids[:, :2], "prompt_mask": torch.ones_like(ids[:, :2]), "advantages": torch.zeros(2)}
    batch |= {"completion_ids": ids[:, 2:], "completion_mask": response, "ref_per_token_logps": reference}
    same_loss_and_gradients(made, batch, 0.3 * kl_per_token(each(made.model), reference, response))
