"""All that may come after a prompt, in one row: the prompt is read once, its choices stand side by side behind it.

An attention mask in blocks shows each choice the prompt and itself, and its tokens have the positions that they would
have as the only one, so the scores are those of a row a choice. What a choice's first token is predicted from, the
prompt's last one, is read once for all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from bench.models.base import Base
from bench.models.parts import output_head
from bench.score.batch import Batch, Encoded, mask_of, pad, stack
from bench.score.fronts import common
from bench.score.readers import only_positions

ABSENT = -1e9
"""Score of a choice that a row does not have: finite, and less than any sum of log-probabilities."""
PADDING, PROMPT = -1, 0
"""Blocks of a row; its choices are 1, 2, ..."""
ROWS = ("XLORA",)
"""PEFT's methods that read a row as a whole."""


@dataclass(frozen=True)
class Beside(Encoded):
    """A prompt and, behind it, every choice but for its last token, from which nothing is predicted."""

    prompt: int = 0
    """Tokens of the prompt."""
    choices: tuple[tuple[int, ...], ...] = ()
    """Ids of each choice, the last one included."""
    asked: tuple[int, ...] = ()
    """How many of a choice's first tokens still belong to what is asked and are not scored; none where it is empty."""

    @staticmethod
    def of(prompt: Sequence[int], choices: Iterable[Sequence[int]], asked: Iterable[int] = ()) -> Beside:
        """A prompt and its choices, each at least one token. Without a prompt each choice begins with what is asked."""
        kept = tuple(map(tuple, choices))
        ids = [*prompt, *(i for choice in kept for i in choice[:-1])]
        return Beside(ids, prompt=len(prompt), choices=kept, asked=tuple(asked))

    @staticmethod
    def joined(pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Beside:
        """Of what is asked and what is scored, for each choice: the prompt is what all that is asked begins with."""
        shared = common(asked for asked, _ in pairs)
        choices = [[*asked[shared:], *scored] for asked, scored in pairs]
        return Beside.of(pairs[0][0][:shared], choices, (len(asked) - shared for asked, _ in pairs))

    def behind(self, front: int) -> Beside:
        """The row without its first `front` tokens, which are the prompt's."""
        return replace(self, ids=self.ids[front:], prompt=self.prompt - front)

    @property
    def blocks(self) -> list[int]:
        """The block of every token."""
        behind = [number for number, choice in enumerate(self.choices, start=1) for _ in choice[:-1]]
        return [PROMPT] * self.prompt + behind

    @property
    def places(self) -> list[int]:
        """The position of every token, as if its choice were the only one."""
        behind = [self.prompt + i for choice in self.choices for i in range(len(choice) - 1)]
        return [*range(self.prompt), *behind]

    @property
    def read(self) -> list[list[int]]:
        """For each choice, which of the tokens read predict its tokens: 0 is the prompt's last one, the others are
        those behind the prompt."""
        starts = [1 + sum(len(other) - 1 for other in self.choices[:number]) for number in range(len(self.choices))]
        return [[0, *range(s, s + len(c) - 1)] for s, c in zip(starts, self.choices, strict=True)]


def can_stand_beside(base: Base, module: nn.Module) -> bool:
    """Whether a row of choices gives this module's answers.

    So it does where each layer's attention obeys a mask over the whole row, and where positions are the given ones:
    rotary embeddings, or GPT-2's table.
    """
    config: Any = base.module.config
    layers = set(getattr(config, "layer_types", None) or ["full_attention"])
    return (
        base.kind == "causal"
        and reads_each_token(base, module)
        and getattr(config, "_attn_implementation", None) == "sdpa"
        and layers == {"full_attention"}
        and getattr(config, "sliding_window", None) is None
        and (config.model_type == "gpt2" or bool(getattr(config, "rope_parameters", None)))
        and not getattr(config, "alibi", False)
    )


def reads_each_token(base: Base, module: nn.Module) -> bool:
    """Whether the module is the base itself, or PEFT's wrapper that changes layers alone: virtual tokens would stand in
    front of a row and of its mask."""
    wrapper: Any = module
    inner = wrapper.get_base_model() if hasattr(module, "get_base_model") else module
    return inner is base.module and not any(
        config.is_prompt_learning
        or config.is_adaption_prompt
        or config.peft_type in ROWS
        or getattr(config, "alora_invocation_tokens", None)
        for config in getattr(wrapper, "peft_config", {}).values()
    )


def side_by_side(
    rows: Sequence[Beside], pad_id: int, device: torch.device, before: int = 0, most: int | None = None
) -> Batch:
    """One batch; `before` tokens, whose keys and values are cached, stand in front of every row. A row may have fewer
    than `most` choices."""
    batch = stack(rows, pad_id, None, device)  # longer than the context at most in tokens, never in positions
    blocks = pad([row.blocks for row in rows], PADDING, batch.padded)
    queries, keys = blocks.unsqueeze(2), blocks.unsqueeze(1)
    # padding sees the prompt and not itself: a row of nothing has no softmax, and the meter tells it by its diagonal
    seen = ((keys == PROMPT) | ((keys == queries) & (keys != PADDING))).tril()
    seen = torch.cat([seen.new_ones(*seen.shape[:2], before), seen], dim=2)
    places = pad([[before + place for place in row.places] for row in rows], 0, batch.padded)
    batch.inputs |= {"attention_mask": seen.unsqueeze(1).to(device), "position_ids": places.to(device)}
    batch.extra = {name: tensor.to(device) for name, tensor in looked_at(rows, most or len(rows[0].choices)).items()}
    return batch


def looked_at(rows: Sequence[Beside], most: int) -> dict[str, torch.Tensor]:
    """`positions` (rows, read) of the tokens read; for each token of each of `most` choices, (rows, most, longest), by
    which of these it is predicted (`by`), which it is (`targets`), and whether it is scored (`real`)."""
    # without a prompt the first place stands for nothing: no choice's first token is scored then
    positions = [[max(0, row.prompt - 1), *range(row.prompt, row.length)] for row in rows]
    width = max(len(choice) for row in rows for choice in row.choices)
    lengths = torch.tensor([filled(map(len, row.choices), most) for row in rows])
    asked = torch.tensor([filled(row.asked, most) for row in rows])
    scored = mask_of(lengths.flatten(), width) - mask_of(asked.flatten(), width)
    return {
        "positions": pad(positions, 0, max(map(len, positions))),
        "by": torch.stack([pad(filled(row.read, most, []), 0, width) for row in rows]),
        "targets": torch.stack([pad(filled(row.choices, most, ()), 0, width) for row in rows]),
        "real": scored.view(len(rows), most, width),
    }


def filled(values: Iterable[Any], most: int, absent: Any = 0) -> list[Any]:
    """Values and, where they are fewer than `most`, `absent` ones behind them."""
    given = [*values]
    return given + [absent] * (most - len(given))


def scores_beside(base: Base, module: nn.Module, batch: Batch, **past: object) -> torch.Tensor:
    """Float32 (items, choices): log-probability of each choice after the prompt, summed over its tokens; `ABSENT` where
    a row has none."""
    with only_positions(output_head(base), batch.extra["positions"], batch.padded):
        logits = module(**batch.inputs, **{"use_cache": False, **past}).logits.float()
    by = batch.extra["by"]
    items = torch.arange(by.shape[0], device=by.device).view(-1, 1, 1)
    logp = logits[items, by, batch.extra["targets"]] - logits.logsumexp(-1)[items, by]
    real = batch.extra["real"]
    return (logp * real).sum(-1).masked_fill(real.sum(-1) == 0, ABSENT)
