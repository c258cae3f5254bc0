"""Training FLOPs of a transformer in closed form, from its configuration alone: the oracle for the counter.

Kaplan et al. 2020, section 2.1 and Narayanan et al. 2021, equation 3, with true sizes in place of their ratios: grouped
key-value heads, gated feed-forward layers, an LM head read at a few positions, frozen weights. A multiply and an add are
two. Norms, activations, softmax and embeddings are left out, as in both papers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Work:
    """One forward and backward pass: the batch, and what of the model trains."""

    rows: int
    length: int
    """Tokens a row, with padding."""
    positions: int = 0
    """Positions a row at which the LM head is read; 0: a head of `classes` on the pooled state."""
    decoder: int = 0
    """Tokens a row the decoder of an encoder-decoder reads."""
    weights: bool = True
    """Whether the weight matrices take gradients (full fine-tuning)."""
    rank: int = 0
    """Rank of LoRA's factors beside every linear layer of the blocks."""
    early: bool = True
    """Whether something trains before the first block's products (embeddings, the first norm's bias)."""
    fused: bool = False
    """Whether attention runs in the fused kernel, whose backward pass computes the scores again."""

    def product(self, tokens: int, inputs: int, outputs: int, weight: bool, upstream: bool = True) -> int:
        """Forward, gradient of the weights where they train, gradient of the inputs where something before trains."""
        return 2 * tokens * inputs * outputs * (1 + weight + upstream)

    def layer(self, tokens: int, inputs: int, outputs: int, upstream: bool = True) -> int:
        """A linear layer of a block, with its factors (Hu et al. 2021, equation 3)."""
        total = self.product(tokens, inputs, outputs, self.weights, upstream)
        if self.rank:
            total += self.product(tokens, inputs, self.rank, True, upstream)
            total += self.product(tokens, self.rank, outputs, True)
        return total

    def attention(self, width: int, queries: int, keys: int) -> int:
        """Scores and weighted values: two products forward, four backward; the fused kernel five (Dao et al. 2022).

        The whole square is counted: with a padding mask the kernel computes it, causal or not.
        """
        return 2 * self.rows * queries * keys * width * (2 + (5 if self.fused else 4))


def training_flops(config: Any, work: Work, classes: int = 2) -> int:
    """FLOPs of one training pass of the model of this configuration (GPT-2, Llama, BERT and T5 families)."""
    tokens, kind = work.rows * work.length, config.model_type
    if kind == "t5":
        return _t5(config, work)
    width = config.hidden_size
    total = sum(_block(config, work, tokens, first=i == 0) for i in range(config.num_hidden_layers))
    if not work.positions:
        return total + work.product(work.rows, width, classes, True)
    if kind in ("bert", "roberta"):  # its LM head has a linear layer of its own, computed at every position
        total += work.layer(tokens, width, width)
    return total + work.product(work.rows * work.positions, width, config.vocab_size, work.weights)


def _block(config: Any, work: Work, tokens: int, first: bool) -> int:
    """Self-attention and feed-forward layer of a decoder-only or encoder-only model."""
    width, heads = config.hidden_size, config.num_attention_heads
    size = getattr(config, "head_dim", None) or width // heads
    grouped = getattr(config, "num_key_value_heads", None) or heads
    upstream = work.early or not first
    if config.model_type == "gpt2":  # one layer makes queries, keys and values
        total, inner, gated = work.layer(tokens, width, 3 * width, upstream), 4 * width, False
    else:
        total = work.layer(tokens, width, heads * size, upstream)
        total += 2 * work.layer(tokens, width, grouped * size, upstream)
        inner, gated = config.intermediate_size, config.model_type == "llama"
    total += work.attention(heads * size, work.length, work.length)
    total += work.layer(tokens, heads * size, width)
    return total + (1 + gated) * work.layer(tokens, width, inner) + work.layer(tokens, inner, width)


def _t5(config: Any, work: Work) -> int:
    """Encoder, decoder with cross-attention, and the LM head; without `positions` the encoder alone."""
    width, inner, wide = config.d_model, config.d_ff, config.num_heads * config.d_kv

    def attend(queries: int, keys: int, upstream: bool, over_encoder: bool = False) -> int:
        q, k = work.rows * queries, work.rows * keys
        total = work.layer(q, width, wide, upstream)
        total += 2 * work.layer(k, width, wide, True if over_encoder else upstream)
        return total + work.attention(wide, queries, keys) + work.layer(q, wide, width)

    def feed(tokens: int) -> int:
        return work.layer(tokens, width, inner) + work.layer(tokens, inner, width)

    total = 0
    for i in range(config.num_layers):
        total += attend(work.length, work.length, work.early or i > 0) + feed(work.rows * work.length)
    if not work.positions:
        return total + work.product(work.rows, width, 2, True)
    for i in range(config.num_decoder_layers):
        total += attend(work.decoder, work.decoder, work.early or i > 0)
        total += attend(work.decoder, work.length, True, over_encoder=True) + feed(work.rows * work.decoder)
    return total + work.product(work.rows * work.positions, width, config.vocab_size, work.weights)
