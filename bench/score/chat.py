"""A prompt as the user's turn of a chat: what the model's own chat template puts before and after it."""

from __future__ import annotations

from bench.models.base import Base
from bench.strategy import Unsupported

TURN = "\u2063the turn\u2063"
"""Stands for the user's text while the template is asked; invisible separators keep it from being a word of one."""


def speaks(base: Base) -> bool:
    """Whether its prompts can be turns of a chat: it continues text, and its tokenizer has a chat template."""
    return base.kind in ("causal", "seq2seq") and bool(base.tokenizer.chat_template)


def around(base: Base) -> tuple[list[int], list[int]]:
    """Ids before and after the user's text, the opening of the model's own turn included.

    The template itself puts the beginning of a sequence where it wants one, so nobody else may. Tokenised apart from
    the text: that may then be cut at its front without touching the template, and nothing it says moves a boundary.

    Raises:
        Unsupported: there is no chat template, or it changes the text.
    """
    if not speaks(base):
        raise Unsupported("the prompt is a turn of a chat, and this model has no chat template: use one without chat")
    turns = [{"role": "user", "content": TURN}]
    text = str(base.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
    head, found, tail = text.partition(TURN)
    if not found:
        raise Unsupported("this model's chat template changes the user's text: use a prompt without chat")
    before, after = (base.tokenizer(part, add_special_tokens=False)["input_ids"] for part in (head, tail))
    return before, after
