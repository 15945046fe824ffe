"""The Transformer (§3, Figure 1): encoder, decoder, and the whole model."""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from annotated_transformer.attention import MultiHeadAttention
from annotated_transformer.cache import (
    CachedCrossAttention,
    CachedSelfAttention,
    DecoderCache,
)
from annotated_transformer.config import TransformerConfig
from annotated_transformer.layers import (
    Embeddings,
    FeedForward,
    LearnedPositions,
    PostNorm,
    PreNorm,
    SinusoidalPositions,
)
from annotated_transformer.masks import causal_mask, padding_mask

POSITIONS = {"sinusoidal": SinusoidalPositions, "learned": LearnedPositions}
RESIDUALS = {"post": PostNorm, "pre": PreNorm}

SrcIds = Int[Tensor, "batch src"]
TgtIds = Int[Tensor, "batch tgt"]
SrcVectors = Float[Tensor, "batch src d_model"]
TgtVectors = Float[Tensor, "batch tgt d_model"]
# Broadcasts to (batch, heads, query, key); True = may look. None hides nothing.
Mask = Bool[Tensor, "..."] | None


class EncoderLayer(nn.Module):
    """Self-attention, then feed-forward, each with a residual (§3.1, Figure 1)."""

    def __init__(
        self,
        self_attention: nn.Module,
        feed_forward: nn.Module,
        residuals: Iterable[nn.Module],
    ):
        super().__init__()
        self.self_attention = self_attention
        self.feed_forward = feed_forward
        self.residuals = nn.ModuleList(residuals)

    def forward(self, x: SrcVectors, src_mask: Mask) -> SrcVectors:
        """Every source position may look at all that are not padding."""
        x = self.residuals[0](x, lambda x: self.self_attention(x, mask=src_mask))
        return self.residuals[1](x, self.feed_forward)


class DecoderLayer(nn.Module):
    """Self-attention, cross-attention, then feed-forward (§3.1, Figure 1)."""

    def __init__(
        self,
        self_attention: nn.Module,
        cross_attention: nn.Module,
        feed_forward: nn.Module,
        residuals: Iterable[nn.Module],
    ):
        super().__init__()
        self.self_attention = self_attention
        self.cross_attention = cross_attention
        self.feed_forward = feed_forward
        self.residuals = nn.ModuleList(residuals)

    def forward(
        self, x: TgtVectors, memory: SrcVectors, src_mask: Mask, tgt_mask: Mask
    ) -> TgtVectors:
        """Queries come from the target; cross-attention takes its keys from memory."""
        x = self.residuals[0](x, lambda x: self.self_attention(x, mask=tgt_mask))
        x = self.residuals[1](x, lambda x: self.cross_attention(x, memory, src_mask))
        return self.residuals[2](x, self.feed_forward)


class Encoder(nn.Module):
    """A stack of N encoder layers (§3.1)."""

    def __init__(self, layers: Iterable[EncoderLayer], norm: nn.Module):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norm = norm

    def forward(self, x: SrcVectors, src_mask: Mask) -> SrcVectors:
        """Each layer takes the output of the one before."""
        for layer in self.layers:
            x = layer(x, src_mask)
        return self.norm(x)


class Decoder(nn.Module):
    """A stack of N decoder layers (§3.1)."""

    def __init__(self, layers: Iterable[DecoderLayer], norm: nn.Module):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norm = norm

    def forward(
        self, x: TgtVectors, memory: SrcVectors, src_mask: Mask, tgt_mask: Mask
    ) -> TgtVectors:
        """Every layer looks at the same memory, the encoder's last output."""
        for layer in self.layers:
            x = layer(x, memory, src_mask, tgt_mask)
        return self.norm(x)


def sublayers(c: TransformerConfig, n_attentions: int) -> list[Any]:
    """The parts of one layer: attention, feed-forward, and a residual around each."""
    options: dict[str, Any] = {
        "d_k": c.d_k,
        "d_v": c.d_v,
        "dropout": c.attention_dropout,
    }
    attentions = [
        MultiHeadAttention(c.d_model, c.n_heads, **options) for _ in range(n_attentions)
    ]
    feed_forward = FeedForward(c.d_model, c.d_ff, activation=c.activation)
    residuals = [
        RESIDUALS[c.norm](c.d_model, c.dropout) for _ in range(n_attentions + 1)
    ]
    return [*attentions, feed_forward, residuals]


def final_norm(c: TransformerConfig) -> nn.Module:
    """Post-norm layers already end in a norm: a second one would be a bug (§3.1)."""
    return nn.LayerNorm(c.d_model) if c.norm == "pre" else nn.Identity()


def reset_parameters(model: nn.Module, d_model: int) -> None:
    """Glorot-uniform matrices, zero biases, embeddings of variance 1/d_model.

    The paper gives no initialization; this one makes the scaled embeddings about as
    large as the sinusoids. Q, K and V are initialized as three separate matrices.
    """
    for name, parameter in model.named_parameters():
        if "embeddings" in name or "positions" in name:
            nn.init.normal_(parameter, std=d_model**-0.5)
        elif parameter.dim() == 2:
            nn.init.xavier_uniform_(parameter)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
    for module in model.modules():
        if isinstance(module, MultiHeadAttention):
            for block in module.query_key_value.weight.detach().split(module.sizes):
                nn.init.xavier_uniform_(block)


class StepByStep:
    """Decoding one token at a time, which computes nothing twice (chapter 15)."""

    def start(self: Any, src: SrcIds, capacity: int) -> DecoderCache:
        """Encode the source, and make a cache that `step` can fill `capacity` long."""
        memory = self.encode(src)
        layers: Iterable[Any] = self.decoder.layers
        cached = [
            DecoderLayer(
                CachedSelfAttention(layer.self_attention, capacity),
                CachedCrossAttention(layer.cross_attention, memory),
                layer.feed_forward,
                layer.residuals,
            )
            for layer in layers
        ]
        decoder = Decoder(cached, self.decoder.norm)  # the same weights
        return DecoderCache(decoder, memory, padding_mask(src))

    def step(
        self: Any,
        ids: Int[Tensor, "batch beam"],
        cache: DecoderCache,
        tgt_mask: Mask = None,
    ) -> Float[Tensor, "batch beam vocab"]:
        """Logits after one more token in each beam (greedy decoding has one beam).

        The new keys of all beams join the cache, so with several beams `tgt_mask`
        (batch, 1, beam, key) says which keys are a beam's own past.
        """
        one = ids.reshape(-1, 1)  # each token is alone, at position `cache.step`
        x = self.embed(self.tgt_embeddings, one, cache.step).view(*ids.shape, -1)
        cache.step += 1
        return self.logits(cache.decoder(x, cache.memory, cache.src_mask, tgt_mask))


class Transformer(StepByStep, nn.Module):
    """The whole model (§3, Figure 1): token ids in, a score for every next token out.

    Ids are integers, 0 is padding (see `special.PAD`), and the masks follow from the
    ids. Weight tying (§3.4): with one vocabulary, one matrix embeds both languages and
    scores the output; with two, only the target's embeddings and the output are tied.
    """

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = c = config
        n_layers = range(c.n_layers)
        self.encoder = Encoder(
            [EncoderLayer(*sublayers(c, 1)) for _ in n_layers], final_norm(c)
        )
        self.decoder = Decoder(
            [DecoderLayer(*sublayers(c, 2)) for _ in n_layers], final_norm(c)
        )
        # Weight tying (§3.4): with one vocabulary, one matrix embeds both languages.
        # The output layer is always tied to the target's embeddings; see `logits`.
        self.src_embeddings = self.tgt_embeddings = Embeddings(c.vocab_size, c.d_model)
        if c.tgt_vocab_size:
            self.tgt_embeddings = Embeddings(c.tgt_vocab_size, c.d_model)
        self.positions = POSITIONS[c.positions](c.max_length, c.d_model)
        self.dropout = nn.Dropout(c.dropout)
        reset_parameters(self, c.d_model)

    def embed(
        self, embeddings: Embeddings, ids: Int[Tensor, "batch length"], start: int = 0
    ) -> Float[Tensor, "batch length d_model"]:
        """Tokens plus positions, then dropout on the sum (§3.4, §3.5, §5.4)."""
        return self.dropout(self.positions(embeddings(ids), start))

    def encode(self, src: SrcIds) -> SrcVectors:
        """Read the source: one vector per token, informed by all the others (§3)."""
        return self.encoder(self.embed(self.src_embeddings, src), padding_mask(src))

    def decode(self, tgt: TgtIds, memory: SrcVectors, src_mask: Mask) -> TgtVectors:
        """Features of each next token, from the source and the target so far (§3).

        Target padding comes last, where the causal mask hides it, so needs no mask.
        """
        x = self.embed(self.tgt_embeddings, tgt)
        return self.decoder(x, memory, src_mask, causal_mask(tgt.size(1), tgt.device))

    def features(self, src: SrcIds, tgt: TgtIds) -> TgtVectors:
        """Encode and decode, without the output layer, which is part of the loss."""
        return self.decode(tgt, self.encode(src), padding_mask(src))

    def logits(
        self, features: Float[Tensor, "*batch d_model"]
    ) -> Float[Tensor, "*batch vocab"]:
        """Score every token with the tied embedding matrix, transposed (§3.4)."""
        return F.linear(features, self.tgt_embeddings.weight)

    def forward(self, src: SrcIds, tgt: TgtIds) -> Float[Tensor, "batch tgt vocab"]:
        """Logits of the next token after each target token."""
        return self.logits(self.features(src, tgt))


def parameter_count(config: TransformerConfig) -> int:
    """The number of trainable parameters at these sizes, a tied matrix counted once."""
    with torch.device("meta"):  # shapes without memory
        return sum(p.numel() for p in Transformer(config).parameters())
