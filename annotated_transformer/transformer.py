"""The Transformer (§3, Figure 1): encoder, decoder, and the whole model."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from annotated_transformer.attention import KeyValueCache, MultiHeadAttention
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


class EncoderLayer(nn.Module):
    """Self-attention, then feed-forward, each with a residual (§3.1, Figure 1)."""

    def __init__(
        self,
        self_attention: MultiHeadAttention,
        feed_forward: FeedForward,
        residuals: list[PostNorm] | list[PreNorm],
    ):
        super().__init__()
        self.self_attention = self_attention
        self.feed_forward = feed_forward
        self.residuals = nn.ModuleList(residuals)

    def forward(
        self,
        x: Float[Tensor, "batch src d_model"],
        src_mask: Bool[Tensor, "..."] | None,
    ) -> Float[Tensor, "batch src d_model"]:
        """Every source position may look at every other that is not padding."""
        x = self.residuals[0](x, lambda x: self.self_attention(x, mask=src_mask))
        return self.residuals[1](x, self.feed_forward)


class DecoderLayer(nn.Module):
    """Self-attention, attention to the source, feed-forward (§3.1, Figure 1)."""

    def __init__(
        self,
        self_attention: MultiHeadAttention,
        cross_attention: MultiHeadAttention,
        feed_forward: FeedForward,
        residuals: list[PostNorm] | list[PreNorm],
    ):
        super().__init__()
        self.self_attention = self_attention
        self.cross_attention = cross_attention
        self.feed_forward = feed_forward
        self.residuals = nn.ModuleList(residuals)

    def forward(
        self,
        x: Float[Tensor, "batch tgt d_model"],
        memory: Float[Tensor, "batch src d_model"],
        src_mask: Bool[Tensor, "..."] | None,
        tgt_mask: Bool[Tensor, "..."] | None,
    ) -> Float[Tensor, "batch tgt d_model"]:
        """Queries come from the target; in the middle, keys come from the memory."""
        x = self.residuals[0](x, lambda x: self.self_attention(x, mask=tgt_mask))
        x = self.residuals[1](x, lambda x: self.cross_attention(x, memory, src_mask))
        return self.residuals[2](x, self.feed_forward)

    def step(
        self,
        x: Float[Tensor, "batch beam d_model"],
        cache: "LayerCache",
        src_mask: Bool[Tensor, "..."] | None,
        tgt_mask: Bool[Tensor, "..."] | None,
    ) -> Float[Tensor, "batch beam d_model"]:
        """`forward` for one new position of each beam, by the keys and values kept."""
        cross = self.cross_attention
        x = self.residuals[0](
            x, lambda x: self.self_attention(x, None, tgt_mask, cache.target)
        )
        x = self.residuals[1](
            x, lambda x: cross.attend(cross.project_query(x), *cache.memory, src_mask)
        )
        return self.residuals[2](x, self.feed_forward)


@dataclass
class LayerCache:
    """What one decoder layer keeps: its own past, and the memory's keys and values."""

    target: KeyValueCache
    memory: tuple[Tensor, Tensor]


@dataclass
class DecoderCache:
    """What decoding keeps from step to step; `step` counts the positions so far."""

    layers: list[LayerCache]
    src_mask: Tensor
    step: int = 0

    def keep(self, rows: Int[Tensor, " kept"]) -> None:
        """Go on with these sentences of the batch only."""
        self.src_mask = self.src_mask[rows]
        for layer in self.layers:
            layer.target.keep(rows)
            layer.memory = (layer.memory[0][rows], layer.memory[1][rows])


class Encoder(nn.Module):
    """A stack of N encoder layers (§3.1)."""

    def __init__(self, layers: Iterable[EncoderLayer], norm: nn.Module):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norm = norm

    def forward(
        self,
        x: Float[Tensor, "batch src d_model"],
        src_mask: Bool[Tensor, "..."] | None,
    ) -> Float[Tensor, "batch src d_model"]:
        """Each layer rewrites the output of the one before."""
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
        self,
        x: Float[Tensor, "batch tgt d_model"],
        memory: Float[Tensor, "batch src d_model"],
        src_mask: Bool[Tensor, "..."] | None,
        tgt_mask: Bool[Tensor, "..."] | None,
    ) -> Float[Tensor, "batch tgt d_model"]:
        """Every layer looks at the same memory, the encoder's last output."""
        for layer in self.layers:
            x = layer(x, memory, src_mask, tgt_mask)
        return self.norm(x)

    def step(
        self,
        x: Float[Tensor, "batch beam d_model"],
        cache: DecoderCache,
        tgt_mask: Bool[Tensor, "..."] | None,
    ) -> Float[Tensor, "batch beam d_model"]:
        """`forward` for one new position, by the cache."""
        layers: Iterable = self.layers
        for layer, layer_cache in zip(layers, cache.layers, strict=True):
            x = layer.step(x, layer_cache, cache.src_mask, tgt_mask)
        return self.norm(x)


class Transformer(nn.Module):
    """The whole model (§3, Figure 1). Token ids in, a score for every next token out.

    Ids are integers, 0 is padding (see `tokenizers.PAD`), and the masks follow from the
    ids. With one vocabulary, one matrix embeds both languages and scores the output;
    with two, the target's matrix still does both (§3.4).
    """

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = config
        c, residual = config, RESIDUALS[config.norm]

        def attention() -> MultiHeadAttention:
            return MultiHeadAttention(
                c.d_model, c.n_heads, d_k=c.d_k, d_v=c.d_v, dropout=c.attention_dropout
            )

        def feed_forward() -> FeedForward:
            return FeedForward(c.d_model, c.d_ff, activation=c.activation)

        def residuals(n: int) -> list:
            return [residual(c.d_model, c.dropout) for _ in range(n)]

        def last_norm() -> (
            nn.Module
        ):  # post-norm layers end normalized: one more is a bug
            return nn.LayerNorm(c.d_model) if c.norm == "pre" else nn.Identity()

        self.encoder = Encoder(
            [
                EncoderLayer(attention(), feed_forward(), residuals(2))
                for _ in range(c.n_layers)
            ],
            last_norm(),
        )
        self.decoder = Decoder(
            [
                DecoderLayer(attention(), attention(), feed_forward(), residuals(3))
                for _ in range(c.n_layers)
            ],
            last_norm(),
        )
        self.src_embeddings = Embeddings(c.vocab_size, c.d_model)
        self.tgt_embeddings = (
            Embeddings(c.tgt_vocab_size, c.d_model)
            if c.tgt_vocab_size
            else self.src_embeddings
        )
        self.positions = POSITIONS[c.positions](c.max_length, c.d_model)
        self.dropout = nn.Dropout(c.dropout)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Glorot-uniform matrices, zero biases, embeddings of variance 1/d_model.

        The paper gives no initialization; this one keeps the scaled embeddings at the
        size of the sinusoids. Q, K and V are drawn as the three matrices they are.
        """
        for name, parameter in self.named_parameters():
            if "embeddings" in name or "positions" in name:
                nn.init.normal_(parameter, std=self.config.d_model**-0.5)
            elif parameter.dim() == 2:
                nn.init.xavier_uniform_(parameter)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
        for module in self.modules():
            if isinstance(module, MultiHeadAttention):
                for block in module.query_key_value.weight.detach().split(module.sizes):
                    nn.init.xavier_uniform_(block)

    def embed(
        self, embeddings: Embeddings, ids: Int[Tensor, "batch length"], start: int = 0
    ) -> Float[Tensor, "batch length d_model"]:
        """Tokens plus positions, then dropout on the sum (§3.4, §3.5, §5.4)."""
        return self.dropout(self.positions(embeddings(ids), start))

    def encode(
        self, src: Int[Tensor, "batch src"]
    ) -> Float[Tensor, "batch src d_model"]:
        """Read the source: one vector a token, in the light of all the others."""
        return self.encoder(self.embed(self.src_embeddings, src), padding_mask(src))

    def decode(
        self,
        tgt: Int[Tensor, "batch tgt"],
        memory: Float[Tensor, "batch src d_model"],
        src_mask: Bool[Tensor, "batch 1 1 src"],
    ) -> Float[Tensor, "batch tgt d_model"]:
        """Features of each next token, from the source and the target up to there.

        Target padding comes last, where the causal mask hides it: it needs no mask.
        """
        x = self.embed(self.tgt_embeddings, tgt)
        return self.decoder(x, memory, src_mask, causal_mask(tgt.size(1), tgt.device))

    def features(
        self, src: Int[Tensor, "batch src"], tgt: Int[Tensor, "batch tgt"]
    ) -> Float[Tensor, "batch tgt d_model"]:
        """Encode and decode, without the output layer, which the loss has inside."""
        return self.decode(tgt, self.encode(src), padding_mask(src))

    def logits(
        self, features: Float[Tensor, "*batch d_model"]
    ) -> Float[Tensor, "*batch vocab"]:
        """Score every token by the embedding matrix, the other way round (§3.4)."""
        return F.linear(features, self.tgt_embeddings.weight)

    def forward(
        self, src: Int[Tensor, "batch src"], tgt: Int[Tensor, "batch tgt"]
    ) -> Float[Tensor, "batch tgt vocab"]:
        """Logits of the next token after each target token."""
        return self.logits(self.features(src, tgt))

    def start(self, src: Int[Tensor, "batch src"], capacity: int) -> DecoderCache:
        """Encode the source, and make room to decode `capacity` positions by `step`."""
        memory = self.encode(src)
        layers: Iterable = self.decoder.layers
        caches = [
            LayerCache(
                KeyValueCache(capacity), layer.cross_attention.project_memory(memory)
            )
            for layer in layers
        ]
        return DecoderCache(caches, padding_mask(src))

    def step(
        self,
        ids: Int[Tensor, "batch beam"],
        cache: DecoderCache,
        tgt_mask: Bool[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "batch beam vocab"]:
        """Logits after one more token, in each beam (greedy decoding has one).

        The new keys of all beams join the cache, so with several beams `tgt_mask`
        (batch, 1, beam, key) says which of them are a beam's own past.
        """
        x = self.embed(
            self.tgt_embeddings, ids.reshape(-1, 1), cache.step
        )  # one position
        x = self.decoder.step(x.view(*ids.shape, -1), cache, tgt_mask)
        cache.step += 1
        return self.logits(x)


def parameter_count(config: TransformerConfig) -> int:
    """Trainable numbers of a model of these sizes, a shared matrix counted once."""
    with torch.device("meta"):  # shapes without memory
        return sum(p.numel() for p in Transformer(config).parameters())
