"""The two readouts: what an adapted model's answer is.

`VerbalizerReader` scores a label by the summed log-probability of its word after the prompt (several tokens
allowed); masked models fill blanks instead (`cloze.py`). `HeadReader` (`heads.py`) puts a fresh linear layer on the
pooled hidden state. Both give (items, labels) scores, and for both the training loss is the cross-entropy over those
scores, so strategies need not know which it is.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import torch
from torch import nn

from bench.config.schema import Template
from bench.data.prompts import fill, words
from bench.data.rows import Rows
from bench.models.base import Base
from bench.models.parts import output_head
from bench.score.batch import Batch, Encoded, mask_of, pad, sent, stack
from bench.score.chat import around
from bench.score.heads import HeadReader
from bench.strategy import TaskContext, Unsupported

if TYPE_CHECKING:
    from bench.score.beside import Beside


class Reader(Protocol):
    """How texts become batches and batches become label scores."""

    @property
    def truncated(self) -> int: ...

    def encode(self, fields: Sequence[dict[str, str]]) -> list[Encoded]: ...

    def collate(self, encoded: Sequence[Encoded]) -> Batch: ...

    def scores(self, module: nn.Module, batch: Batch) -> torch.Tensor: ...

    def loss(self, module: nn.Module, batch: Batch, labels: torch.Tensor) -> torch.Tensor: ...

    def through(self, template: Template) -> Self: ...


@contextmanager
def only_positions(head: nn.Module, positions: torch.Tensor, padded: int) -> Iterator[None]:
    """Let the LM head see only `positions` (rows, p) of the hidden states.

    Logits over a 49,000-word vocabulary at every position would cost more memory than the rest of the step.
    A hook works for every family and under every PEFT wrapper; virtual prompt tokens in front shift positions.
    """

    def pick(_: nn.Module, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        hidden = arguments[0]
        shift = hidden.shape[1] - padded
        rows = torch.arange(hidden.shape[0], device=hidden.device).unsqueeze(1)
        return (hidden[rows, positions.to(hidden.device) + shift],)

    handle = head.register_forward_pre_hook(pick)
    try:
        yield
    finally:
        handle.remove()


def behind_virtual_tokens(module: nn.Module) -> bool:
    """Whether PEFT puts virtual tokens in front of a row's own; a prefix of keys and values is none."""
    config = getattr(module, "active_peft_config", None)
    return config is not None and config.is_prompt_learning and config.peft_type not in ("PREFIX_TUNING", "CARTRIDGE")


class VerbalizerReader:
    """Summed log-probability of each label's word after the prompt, for causal and encoder-decoder models."""

    kinds: ClassVar[tuple[str, ...]] = ("causal", "seq2seq")
    shares: ClassVar[bool] = True
    """Whether all that may come after an item's prompt may stand side by side behind it."""
    fronted: ClassVar[bool] = False
    """Whether prompts may begin alike with demonstrations, which are worth reading once."""
    most_choices: int | None = None
    """Choices of a row, where rows may have fewer."""

    def __init__(self, base: Base, context: TaskContext) -> None:
        if base.kind not in self.kinds:
            what = "has no LM head" if base.kind == "encoder" else "fills blanks only"
            raise Unsupported(f"the verbalizer readout continues text, and this model {what}: use readout=head")
        self.base, self.sequence, self.labels = base, context.sequence, context.task.labels
        self.objective = context.task.objective
        if self.objective == "language" and base.kind != "causal":
            raise Unsupported(f"objective=language predicts every next token; this model is {base.kind}: use labels")
        self.truncated = 0
        self.reserved = 0
        """Tokens of every row kept free for what comes between prompt and word."""
        self.device = next(base.module.parameters()).device
        self.speak(context.task.templates[0])

    def speak(self, template: Template) -> None:
        """Ask through this template from now on. Raises `Unsupported` where the model cannot tell its words apart."""
        tokenizer = self.base.tokenizer
        self.template = template
        self.words = [tokenizer(w, add_special_tokens=False)["input_ids"] for w in words(template, self.labels)]
        if len({tuple(w) for w in self.words}) < len(self.words) or not all(self.words):
            raise Unsupported("two label words become the same tokens in this model's vocabulary: choose other words")
        self.single = self.base.kind != "seq2seq" and all(len(w) == 1 for w in self.words)
        self.firsts = torch.tensor([w[0] for w in self.words], device=self.device)
        """Int64 (labels,): the first token of each word."""
        self.bos, self.eos = self.edges()

    def edges(self) -> tuple[list[int], list[int]]:
        """What stands before and after every prompt: special tokens, and the chat template where one is used."""
        tokenizer, kind = self.base.tokenizer, self.base.kind
        end = [tokenizer.eos_token_id] if kind == "seq2seq" else []
        if self.template.chat:
            before, after = around(self.base)
            return before, [*after, *end]
        probe = tokenizer("a")["input_ids"]
        return [tokenizer.bos_token_id] if kind == "causal" and probe[:1] == [tokenizer.bos_token_id] else [], end

    def through(self, template: Template) -> Self:
        """The same model asked through another prompt, with that prompt's words; counts its own truncations."""
        other = copy.copy(self)
        other.truncated = 0
        other.speak(template)
        return other

    def encode(self, fields: Sequence[dict[str, str]]) -> list[Encoded]:
        """Prompts as ids. One longer than `sequence` loses its front, for the question stands at its end; a chat
        template around it stays whole."""
        return [Encoded(self.fit(self.tokens(fill(self.template, f)))) for f in fields]

    def encode_training(self, rows: Rows) -> list[Encoded]:
        """What is trained on, as it is read afterwards."""
        return self.encode(rows.fields)

    def tokens(self, text: str) -> list[int]:
        """Ids without special tokens."""
        ids: list[int] = self.base.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def fit(self, ids: list[int]) -> list[int]:
        """Add special tokens and cut to `sequence` from the front, counting what was cut."""
        longest_word = 0 if self.base.kind == "seq2seq" else max(map(len, self.words))
        room = min(self.sequence, (self.base.max_length or self.sequence) - longest_word)
        room -= len(self.bos) + len(self.eos) + self.reserved
        if room < 1:
            raise Unsupported(
                f"what stands around every prompt leaves no token of {self.sequence} for it: raise sequence"
            )
        if len(ids) > room:
            self.truncated += 1
            ids = ids[len(ids) - room :]
        return self.surround(ids)

    def surround(self, ids: list[int]) -> list[int]:
        """The prompt between the special tokens of the model."""
        return [*self.bos, *ids, *self.eos]

    def collate(self, encoded: Sequence[Encoded]) -> Batch:
        """One row an item where every label is one token, else one row a label."""
        if self.single:
            batch = stack(encoded, self.base.tokenizer.pad_token_id, self.base.max_length, self.device)
            batch.extra["positions"] = batch.lengths.unsqueeze(1) - 1
            return self.to_device(batch)
        if self.base.kind == "seq2seq":
            return self.to_device(self.collate_decoder(encoded))
        rows = [Encoded([*e.ids, *word[:-1]]) for e in encoded for word in self.words]
        starts = torch.tensor([e.length - 1 for e in encoded for _ in self.words])
        batch = stack(rows, self.base.tokenizer.pad_token_id, self.base.max_length, self.device)
        batch.items = len(encoded)
        return self.to_device(self.add_targets(batch, starts))

    def collate_decoder(self, encoded: Sequence[Encoded]) -> Batch:
        """Encoder rows repeated for each label; the decoder reads its start token and the word."""
        pad_id = self.base.tokenizer.pad_token_id
        batch = stack([e for e in encoded for _ in self.words], pad_id, self.base.max_length, self.device)
        batch.items = len(encoded)
        config: Any = self.base.module.config
        start = config.decoder_start_token_id
        decoder = [[start, *word[:-1]] for _ in encoded for word in self.words]
        width = max(map(len, decoder))
        batch.inputs["decoder_input_ids"] = pad(decoder, pad_id, width)
        return self.add_targets(batch, torch.zeros(len(decoder), dtype=torch.int64))

    def add_targets(self, batch: Batch, starts: torch.Tensor) -> Batch:
        """Where each word's tokens are predicted, (rows, longest word), and which tokens they are."""
        targets = [word for _ in range(batch.items) for word in self.words]
        width = max(map(len, self.words))
        lengths = torch.tensor([len(t) for t in targets])
        real = mask_of(lengths, width)
        batch.extra["positions"] = (starts.unsqueeze(1) + torch.arange(width)) * real
        batch.extra["targets"] = pad(targets, 0, width)
        batch.extra["real"] = real
        return batch

    def to_device(self, batch: Batch) -> Batch:
        batch.inputs = {k: sent(v, self.device) for k, v in batch.inputs.items()}
        batch.extra = {k: sent(v, self.device) for k, v in batch.extra.items()}
        return batch

    def loss(self, module: nn.Module, batch: Batch, labels: torch.Tensor) -> torch.Tensor:
        """Cross-entropy over the labels' scores, or of every next token of the prompt (`objective: language`)."""
        if self.objective == "labels":
            return nn.functional.cross_entropy(self.scores(module, batch), labels)
        real = batch.inputs["attention_mask"][:, -batch.padded :] == 1
        loss: torch.Tensor = module(**batch.inputs, labels=batch.inputs["input_ids"].masked_fill(~real, -100)).loss
        return loss

    def weight(self, module: nn.Module, encoded: Encoded) -> int:
        """What a row weighs in the mean that the loss is: 1, or the tokens predicted (`objective: language`)."""
        if self.objective == "labels":
            return 1
        first = 0 if behind_virtual_tokens(module) else 1  # nothing stands before it by which it could be predicted
        read = [0] if self.single else [len(word) - 1 for word in self.words]
        return sum(encoded.length + more - first for more in read)

    def scores(self, module: nn.Module, batch: Batch, **past: object) -> torch.Tensor:
        """Float32 (items, labels): log-probability of each label's word, summed over its tokens."""
        decoder = batch.inputs.get("decoder_input_ids")
        length = batch.padded if decoder is None else decoder.shape[1]
        with only_positions(output_head(self.base), batch.extra["positions"], length):
            logits = module(**batch.inputs, **past).logits
        logp = torch.log_softmax(logits.float(), dim=-1)
        if self.single:
            return logp[:, 0, self.firsts]
        picked = logp.gather(-1, batch.extra["targets"].unsqueeze(-1)).squeeze(-1)
        return (picked * batch.extra["real"]).sum(-1).view(batch.items, len(self.words))

    def choices(self, encoded: Encoded) -> Sequence[Sequence[int]]:
        """Ids of all that may come after one item's prompt."""
        return self.words

    def beside(self, encoded: Encoded) -> Beside:
        """One item's choices side by side."""
        from bench.score.beside import Beside

        return Beside.of(encoded.ids, self.choices(encoded))

    def word_lengths(self, batch: Batch) -> torch.Tensor:
        """Int64 (items, labels): tokens of each label's word."""
        return torch.tensor([len(word) for word in self.words], device=self.device).expand(batch.items, -1)


def make_reader(base: Base, context: TaskContext) -> VerbalizerReader | HeadReader:
    """The reader of the task's kind and the cell's readout."""
    from bench.score.answers import AnswerReader, RewardReader  # they extend the readers of this file
    from bench.score.cloze import ClozeReader
    from bench.score.replies import ReplyReader
    from bench.score.tags import TagReader

    if context.task.continued and context.readout == "verbalizer":
        from bench.score.continued import reader_of

        return reader_of(base, context)
    if context.task.kind == "prefer":
        return RewardReader(base, context) if context.readout == "head" else AnswerReader(base, context)
    if context.task.kind == "tag" and context.readout == "head":
        return TagReader(base, context)
    if context.task.written:
        if context.readout == "head":
            raise Unsupported("a head answers with labels, and this task wants a reply: use readout=verbalizer")
        if base.kind != "causal":
            other = ", or readout=head" if context.task.kind == "tag" and base.kind == "masked" else ""
            raise Unsupported(
                f"this task is answered by writing, and this model is {base.kind}: use a causal one{other}"
            )
        return ReplyReader(base, context)
    if context.readout == "head":
        return HeadReader(base, context)
    return ClozeReader(base, context) if base.kind == "masked" else VerbalizerReader(base, context)
