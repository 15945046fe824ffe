"""Checks of chapter 08, The whole Transformer: one for each exercise."""

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from annotated_transformer.attention import MultiHeadAttention
from annotated_transformer.checks.common import Answer, exercise, seeded
from annotated_transformer.checks.common import close as same
from annotated_transformer.config import TransformerConfig
from annotated_transformer.layers import FeedForward, PostNorm, PreNorm
from annotated_transformer.masks import causal_mask, padding_mask
from annotated_transformer.special import PAD
from annotated_transformer.transformer import DecoderLayer, Transformer, parameter_count

__all__ = ["check_count", "check_decoder", "check_language_model"]

WORDS = 17
PLAY = TransformerConfig(vocab_size=WORDS, d_model=16, d_ff=32, n_heads=2, n_layers=3)
SRC = torch.tensor([[5, 6, 7, 8, 9, 10, 2], [11, 12, 2, 0, 0, 0, 0]])
PADDED = torch.tensor([[1, 5, 6, 7, 0], [1, 13, 14, 15, 16]])  # a target with padding


def new_model(config: Any = PLAY, seed: Any = 0, **changes: Any) -> Any:
    """A small model in `eval()`, the same one each time."""
    torch.manual_seed(seed)
    return Transformer(replace(config, **changes)).eval()


def shaken_model(norm: Any, seed: Any = 0, by: Any = 0.1) -> Any:
    """One whose gains and biases are not 1 and 0 any more."""
    model, g = new_model(norm=norm, seed=seed), seeded(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(by * torch.randn(parameter.shape, generator=g))
    return model


def new_decoder_layer(
    kind: Any = DecoderLayer, d_model: Any = 16, n_heads: Any = 2, d_ff: Any = 32
) -> Any:
    """A small decoder layer, the same one each time."""
    torch.manual_seed(0)
    attentions = [MultiHeadAttention(d_model, n_heads) for _ in range(2)]
    residuals = [PostNorm(d_model, 0.0) for _ in range(3)]
    return kind(*attentions, FeedForward(d_model, d_ff), residuals)


@exercise
def check_count(function: Answer) -> str:
    """`my_count(c)`: the parameters of a model with config c, by arithmetic."""
    c = replace(PLAY, vocab_size=101, d_model=20, d_ff=33, n_heads=4, n_layers=3)
    answer, N, d, V, right = function(c), 3, 20, 101, parameter_count(c)
    for error, mistake in (
        (-N * 5 * 2 * d, "did you forget the layer norms?"),
        (-N * 5 * d, "a layer norm has a gain and a bias"),
        (-N * 2 * d, "the decoder layer has three norms, not two"),
        (-N * 2 * (33 + d), "the two matrices of the feed-forward have biases (Eq. 2)"),
        (N * 3 * 4 * d, "the attention's matrices have no biases"),
        (-N * 4 * d * d, "a decoder layer has two attentions: self and cross"),
        (-V * d, "did you forget the embedding matrix?"),
        (V * d, "the embedding matrix is shared: counted twice"),
        (2 * V * d, "the embedding matrix is shared: counted three times"),
        (V, "the output has no bias: it is the embedding matrix"),
        (2 * 2 * d, "post-norm has no norm after the stacks"),
        (c.max_length * d, "sinusoids are not learned: they are no parameters"),
    ):
        if answer == right + error:
            return mistake
    if answer != right:
        return f"{answer - right:+,} off for {N} layers, width {d}, {V} tokens"
    for changes, mistake in (
        ({"d_k": 7}, "wrong if d_k differs from d_model / n_heads"),
        ({"d_v": 3}, "wrong if d_v differs: it is the width of W^V and W^O"),
        ({"norm": "pre"}, "pre-norm has one more norm after each stack"),
        ({"tgt_vocab_size": 59}, "with two vocabularies there are two matrices"),
        ({"positions": "learned"}, "learned positions: max_length rows, shared"),
        (
            {"positions": "learned", "tgt_vocab_size": 59},
            "one table of positions serves both languages",
        ),
    ):
        if function(replace(c, **changes)) != parameter_count(replace(c, **changes)):
            return mistake
    return "correct"


@exercise
def check_language_model(function: Answer) -> str:
    """`my_language_model(model, ids)`: a decoder from encoder layers."""
    mask, real = causal_mask(5), PADDED != PAD
    for norm in ("post", "pre"):
        model = shaken_model(norm)
        try:
            answer = function(model, PADDED)
        except RuntimeError:
            return "sizes that do not fit: the mask is (length, length)"
        if answer.shape == (2, 5, 16):
            return "these are features: score them by model.logits"
        if answer.shape != (2, 5, WORDS):
            return f"the shape should be {(2, 5, WORDS)}"
        if torch.allclose(answer.sum(-1), torch.ones(2, 5), atol=1e-4):
            return "these are probabilities: return the logits"
        if torch.allclose(answer.exp().sum(-1), torch.ones(2, 5), atol=1e-4):
            return "these are logarithms of probabilities: return the logits"
        x = model.embed(model.src_embeddings, PADDED)
        bare, stack = model.src_embeddings(PADDED), x
        for layer in model.encoder.layers:
            stack = layer(stack, mask)
        for features, mistake in (
            (model.encoder(x, None), "no mask: each position sees its future"),
            (model.encode(PADDED), "the padding mask alone hides no future"),
            (model.encoder(x, ~mask), "the mask is upside down: True = may look"),
            (model.encoder(x, mask.T), "each position sees its future, not its past"),
            (model.encoder(bare, mask), "there are no positions: use model.embed"),
            (model.encoder(bare / 4, mask), "embed scales, and adds positions: use it"),
            (model.decoder(x, x, None, mask), "use the encoder's stack: one text only"),
            (stack, "correct" if norm == "post" else "pre-norm needs the last norm"),
        ):
            wrong = mistake != "correct"
            if wrong and same(answer[real], model.logits(features)[real]):
                return mistake
        right = model.logits(model.encoder(x, mask))
        if not same(answer[real], right[real]):
            return "other numbers: embed, stack with a causal mask, logits"
        try:
            shorter = function(model, PADDED[1:, :3])
        except RuntimeError:
            return "fails at another length: make the mask from ids.size(1)"
        if not same(shorter[0], right[1, :3]):
            return "wrong at another length: make the mask from ids.size(1)"
    return "correct"


def decoder_case(kind: Any) -> Any:
    """A layer with shaken norms, and inputs for it."""
    layer = new_decoder_layer()
    layer.residuals = nn.ModuleList([kind(16, 0.0) for _ in range(3)])
    with torch.no_grad():
        for i, p in enumerate(layer.residuals.parameters()):
            p.add_(0.3 * torch.randn(p.shape, generator=seeded(i)))
    x, memory = (torch.randn(2, n, 16, generator=seeded(n)) for n in (5, 7))
    return (
        layer,
        x.requires_grad_(),
        memory.requires_grad_(),
        padding_mask(SRC),
        causal_mask(5),
    )


@exercise
def check_decoder(function: Answer) -> str:
    """`my_decoder(layer, x, memory, src_mask, tgt_mask)`: a layer repaired."""
    for kind in (PostNorm, PreNorm):
        layer, x, memory, *masks = case = decoder_case(kind)
        try:
            answer = function.let(*case)
        except RuntimeError:
            return "sizes that do not fit: are queries from x, with the right masks?"
        if answer is None:
            return "not done yet"
        if answer.shape != x.shape:
            return f"the shape should be {tuple(x.shape)}"
        if not answer.requires_grad:
            return "no gradient comes through: leave out detach and no_grad"
        inputs = (memory, *layer.residuals.parameters())
        seen, *used = torch.autograd.grad(
            answer.square().sum(), inputs, retain_graph=True, allow_unused=True
        )
        if seen is None or not seen.any():
            return "the memory is never read"
        (future,) = torch.autograd.grad(
            answer[:, 0].square().sum(), x, retain_graph=True, allow_unused=True
        )
        if future is not None and future[:, 1:].any():
            return "position 0 sees its future: is tgt_mask used in self-attention?"
        if seen[1, 3:].any():
            return (
                "padding of the source is seen: which mask does cross-attention need?"
            )
        unused = any(gradient is None for gradient in used)
        if kind is PostNorm and unused:
            return "one of the three residuals is never used"
        right = layer(x, memory, *masks)
        if unused or not same(answer, right):
            if kind is PreNorm:
                return (
                    "right for PostNorm only: does each sub-layer get the *normed* x?"
                )
            return "other numbers than a DecoderLayer's: are the order and masks right?"
    return "correct"
