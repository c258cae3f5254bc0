"""What papers promise of single methods: AdaLoRA's final ranks, QLoRA's 4-bit base, fusion's frozen adapters."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from tiny import FAMILIES, STRATEGIES, drive, driven

from bench.models.parts import linear_layers
from bench.strategy import Unsupported

AXES = {"train_examples": 40, "train_tokens": 2500, "train_flops": 3e8, "train_seconds": 1.0}


def ranks(module: Any) -> list[int]:
    """Ranks left at the end, a layer each: entries of E that are not zero."""
    return [int((p != 0).sum()) for name, p in module.named_parameters() if "lora_E" in name]


@pytest.mark.parametrize("axis", AXES)
def test_adalora_ends_at_its_target_whatever_the_axis(axis: str) -> None:
    """The mean rank of all layers is the target, and layers differ: the budget moved (Zhang et al. 2023, 3.2)."""
    done = drive("adalora", "tiny-llama", "verbalizer", more={"init_r": 6, "target_r": 3}, **{axis: AXES[axis]})
    assert done.refused is None and done.plan is not None
    left = ranks(done.plan.module)
    assert sum(left) <= 3 * len(left), (left, "no more than the target")
    assert sum(left) >= 3 * len(left) - len(left), (left, "and not far below: a tie may prune one more")
    assert max(left) > min(left)


@pytest.mark.parametrize("family", FAMILIES)
def test_qlora_holds_its_base_in_four_bits(family: str) -> None:
    """Half a byte a weight of every linear layer, and scales of at most one byte in 8 weights at these tiny sizes."""
    plain = tiny.base(family)
    sizes = {name: layer.weight.numel() for name, layer in linear_layers(plain.module).items()}
    done = driven("qlora", family, STRATEGIES["qlora"].readouts[0])
    if done.refused is not None:
        pytest.skip(f"unsupported, as it says: {done.refused}")
    import bitsandbytes as bnb

    held = [m for m in done.base.module.modules() if isinstance(m, bnb.nn.Linear4bit)]
    assert held, "linear layers are quantised"
    for layer in held:
        weight = layer.weight
        assert weight.dtype == torch.uint8
        numbers = weight.quant_state.shape.numel()
        assert weight.numel() * weight.element_size() == -(-numbers // 2)
        assert numbers in sizes.values()
        scales = weight.quant_state.absmax
        assert scales.element_size() == 1, "the scales are quantised too (double quantisation)"
    share = 0.8 if family == "tiny-t5" else 1.0  # transformers keeps T5's `wo` whole: in 16 bits it overflows
    assert sum(m.weight.quant_state.shape.numel() for m in held) == share * sum(sizes.values())


@pytest.mark.parametrize("shares", [[1.0], [0.2, 0.5], [0.4, 0.9, 0.6, 0.95]])
def test_adalora_reaches_its_final_ranks_however_the_budget_ends(shares: list[float]) -> None:
    """In one step, before its last part, and with a progress that falls back because it was an estimate."""
    done = drive("adalora", "tiny-llama", "verbalizer", more={"init_r": 6, "target_r": 3}, train_examples=4)
    strategy = STRATEGIES["adalora"]
    plan = strategy.prepare(tiny.base("tiny-llama"), done.context, strategy.Options(init_r=6, target_r=3))
    assert plan.examples and plan.collate and plan.loss and plan.after_step and plan.finish
    examples = plan.examples()
    batch, labels = plan.collate(examples.encoded[:4]), torch.tensor(examples.labels[:4])
    for share in shares:
        plan.loss(batch, labels).backward()
        with torch.no_grad():
            for p in plan.groups[0].params:
                p -= 0.05 * p.grad  # type: ignore[operator]
        plan.after_step(share)
        for p in plan.groups[0].params:
            p.grad = None
    plan.finish()
    left = ranks(plan.module)
    assert 2 * len(left) <= sum(left) <= 3 * len(left)


def test_qlora_counts_the_flops_of_its_base() -> None:
    """A 4-bit product costs what the whole one does: training FLOPs within 1% of LoRA's with the same factors."""
    counted = {
        n: sum(s.flops for s in drive(n, "tiny-llama", "verbalizer", more={"r": 4}).meter.steps)
        for n in ("lora", "qlora")
    }
    assert counted["qlora"] == pytest.approx(counted["lora"], rel=0.01)


def test_fusion_says_when_its_attention_never_trained() -> None:
    """A budget that ends in the first stage leaves an attention as it was made."""
    done = drive("adapter_fusion", "tiny-llama", "verbalizer", train_examples=1)
    assert done.plan is not None and any("took no step" in note for note in done.plan.notes)
    whole = driven("adapter_fusion", "tiny-llama", "verbalizer")
    assert whole.plan is not None and not any("took no step" in note for note in whole.plan.notes)


def test_attention_only_leaves_other_norms_alone() -> None:
    """Llama's `post_attention_layernorm` belongs to the feed-forward."""
    plan = STRATEGIES["selective"].prepare(
        tiny.base("tiny-llama"), tiny.context("verbalizer"), tiny.options("selective")
    )
    names = {id(p): n for n, p in plan.module.named_parameters()}  # type: ignore[union-attr]
    chosen = {names[id(p)].split(".")[-2] for p in plan.groups[0].params}
    assert chosen == {"q_proj", "k_proj", "v_proj", "o_proj"}


def test_the_last_blocks_of_an_encoder_decoder_are_the_decoders() -> None:
    """They stand at the top of what answers."""
    options = tiny.options("selective", parameters=["*"], last_blocks=1)
    plan = STRATEGIES["selective"].prepare(tiny.base("tiny-t5"), tiny.context("verbalizer"), options)
    names = {id(p): n for n, p in plan.module.named_parameters()}  # type: ignore[union-attr]
    assert {names[id(p)].split(".block.")[0] for p in plan.groups[0].params} == {"decoder"}


def test_a_glob_that_matches_nothing_is_named() -> None:
    """Also where another one does."""
    options = tiny.options("selective", parameters=["*q_proj*", "*qq_proj*"])
    with pytest.raises(Unsupported, match=r"no parameter matches \*qq_proj\*"):
        STRATEGIES["selective"].prepare(tiny.base("tiny-llama"), tiny.context("verbalizer"), options)


@pytest.mark.parametrize(
    ("kind", "word"), [("ADALORA", "adalora"), ("POLY", "sources"), ("PROMPT_TUNING", "prompt_tuning")]
)
def test_a_type_a_configuration_cannot_drive_names_its_own_strategy(kind: str, word: str) -> None:
    """It would end in PEFT's own exception, or overshoot the budget."""
    refused = drive("peft", "tiny-llama", "verbalizer", more={"peft_type": kind}).refused
    assert refused and word in refused


@pytest.mark.parametrize("kind", ["LN_TUNING", "OFT", "VERA", "IA3"])
def test_a_peft_type_trains_its_own_layers(kind: str) -> None:
    """PEFT's default layers of the type where it has some (norms for LN_TUNING), every linear layer where it has none."""
    done = drive("peft", "tiny-llama", "verbalizer", more={"peft_type": kind})
    assert done.refused is None and done.plan is not None and done.plan.module is not None
    names = [
        n for n, p in done.plan.module.named_parameters() if any(p is q for g in done.plan.groups for q in g.params)
    ]
    assert names and all("norm" in n for n in names) == (kind == "LN_TUNING")


def test_fusion_trains_adapters_first_and_then_only_the_attention() -> None:
    """Before half of the budget adapters move and attention does not; after it the other way round."""
    strategy, context = STRATEGIES["adapter_fusion"], tiny.context("verbalizer")
    seen: list[tuple[float, list[torch.Tensor], list[torch.Tensor]]] = []
    plan = strategy.prepare(tiny.base("tiny-llama"), context, strategy.Options())

    def copies(group: int) -> list[torch.Tensor]:
        return [p.detach().clone() for p in plan.groups[group].params]

    plan.after_step = lambda progress: seen.append((progress, copies(0), copies(-1)))
    from bench.budget import Meter
    from bench.config.schema import Budget
    from bench.train.loop import adapt

    start = (0.0, copies(0), copies(-1))
    meter = Meter(Budget(train_examples=24))
    meter.watch(plan.seen)
    adapt(plan, context, meter)
    meter.unwatch()

    def moved(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
        return any(not torch.equal(a, b) for a, b in zip(one, other, strict=True))

    stages = []
    for (_, adapters, attention), (_, adapters_then, attention_then) in zip(seen, [start, *seen], strict=False):
        stages.append((moved(adapters, adapters_then), moved(attention, attention_then)))
    assert stages == [(True, False)] * 3 + [(False, True)] * 3


def test_fusion_of_several_tasks_has_an_adapter_a_task() -> None:
    """With sources there is one adapter a task, each trained on rows of its own task."""
    context = several(position=1)
    strategy = STRATEGIES["adapter_fusion"]
    plan = strategy.prepare(tiny.base("tiny-llama"), context, strategy.Options())
    assert plan.examples is not None and plan.mixed == 2
    groups = plan.examples().groups
    assert [groups.count(g) for g in range(4)] == [8, tiny.LABELS, 8, tiny.LABELS], "three tasks, and the own one again"
    assert plan.wants is not None
    assert [plan.wants(g, 0.2) for g in range(4)] == [True, True, True, False]
    assert [plan.wants(g, 0.6) for g in range(4)] == [False, False, False, True]


def several(position: int) -> Any:
    """SST-2 with two further tasks of eight other rows each, one before and one after it."""
    from dataclasses import replace

    pool = tiny.rows().train
    own = tiny.context("verbalizer")
    flipped = tiny.task().model_copy(update={"labels": ["positive", "negative"]})
    first = replace(own, name="first", train=pool.take(range(100, 108)), task=flipped)
    last = replace(own, name="last", train=pool.take(range(108, 116)))
    return replace(own, sources=(first, last), position=position)


def test_a_multitask_plan_reads_every_task_by_its_own_labels() -> None:
    """Rows of every task, labelled; a batch is of one task and scored by that task's words."""
    plan = STRATEGIES["lora"].prepare(tiny.base("tiny-llama"), several(position=1), tiny.options("lora"))
    assert plan.examples is not None and plan.collate is not None
    examples = plan.examples()
    assert examples.groups == [0] * 8 + [1] * tiny.LABELS + [2] * 8
    own = tiny.context("verbalizer").train.labels
    assert examples.labels[8:-8] == own
    batch = plan.collate(examples.encoded[:4])
    assert batch.group == 0
    from bench.train.order import batches

    for rows, _ in zip(batches(examples.lengths, 4, 0, examples.groups), range(30), strict=False):
        assert len({examples.groups[i] for i in rows}) == 1


@pytest.mark.parametrize("family", ["tiny-gpt2", "tiny-llama"])
def test_a_prefix_starts_as_the_prompt_itself(family: str) -> None:
    """Before training, the prefixed model scores as the base does with the same words in front; a random prefix does
    not."""
    from bench.train.plans import prompt_ids

    base, context = tiny.base(family), tiny.context("verbalizer")
    plan = tiny.STRATEGIES["prefix_tuning"].prepare(base, context, tiny.options("prefix_tuning"))
    reader, module = plan.answer.reader, plan.answer.module.eval()  # type: ignore[attr-defined]
    [encoded] = reader.encode(context.train.fields[:1])
    ids = [*prompt_ids(base, context, 4), *encoded.ids]
    with torch.no_grad():
        prefixed = reader.scores(module, reader.collate([encoded]))
        joined = reader.scores(base.module, reader.collate([type(encoded)(ids)]))
    assert torch.allclose(prefixed, joined, atol=1e-5)
    free = tiny.STRATEGIES["prefix_tuning"].prepare(
        tiny.base(family), context, tiny.options("prefix_tuning", init="random")
    )
    with torch.no_grad():
        other = free.answer.reader.scores(free.answer.module.eval(), reader.collate([encoded]))  # type: ignore[attr-defined]
    assert not torch.allclose(other, joined, atol=1e-3)
