"""Checks of chapter 08, The whole Transformer: one for each exercise."""

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations, permutations
from typing import Any

import torch
from torch import Tensor, nn

from annotated_transformer.attention import MultiHeadAttention
from annotated_transformer.checks.common import (
    Answer,
    Mistake,
    compare,
    errors_mean,
    exercise,
    need,
    need_gradient,
    need_number,
    need_tensor,
    normal,
    same,
    seeded,
)
from annotated_transformer.config import BASE, BIG, TransformerConfig
from annotated_transformer.layers import FeedForward, PostNorm, PreNorm
from annotated_transformer.masks import causal_mask, padding_mask
from annotated_transformer.special import PAD
from annotated_transformer.transformer import (
    DecoderLayer,
    EncoderLayer,
    Transformer,
    parameter_count,
)

__all__ = ["check_count", "check_decoder", "check_encoder", "check_language_model"]

WORDS = 17
PLAY = TransformerConfig(vocab_size=WORDS, d_model=16, d_ff=32, n_heads=2, n_layers=3)
SRC = torch.tensor([[5, 6, 7, 8, 9, 10, 2], [11, 12, 2, 0, 0, 0, 0]])
PADDED = torch.tensor([[1, 5, 6, 7, 0], [1, 13, 14, 15, 16]])  # a target with padding


def new_model(
    config: TransformerConfig = PLAY, seed: int = 0, **changes: Any
) -> Transformer:
    """A small model in `eval()`, the same one each time."""
    torch.manual_seed(seed)
    return Transformer(replace(config, **changes)).eval()


def shaken_model(norm: str, seed: int = 0, by: float = 0.1) -> Transformer:
    """One whose gains and biases are not 1 and 0 any more."""
    model, g = new_model(norm=norm, seed=seed), seeded(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(by * torch.randn(parameter.shape, generator=g))
    return model


def new_decoder_layer(
    kind: Callable[..., DecoderLayer] = DecoderLayer,
    d_model: int = 16,
    n_heads: int = 2,
    d_ff: int = 32,
) -> DecoderLayer:
    """A small decoder layer, the same one each time."""
    torch.manual_seed(0)
    attentions = [MultiHeadAttention(d_model, n_heads) for _ in range(2)]
    residuals = [PostNorm(d_model, 0.0) for _ in range(3)]
    return kind(*attentions, FeedForward(d_model, d_ff), residuals)


@exercise
def check_count(function: Answer) -> None:
    """`my_count(c)`: the parameters of a model with config c, by arithmetic."""
    c = replace(PLAY, vocab_size=101, d_model=22, d_ff=37, n_heads=2, n_layers=3)
    two, learned = replace(c, tgt_vocab_size=59), replace(c, positions="learned")
    for config, hint in (
        (c, "for 3 layers, width 22, 101 tokens"),
        (replace(c, d_k=7), "if d_k differs from d_model / n_heads"),
        (replace(c, d_v=3), "if d_v differs: it is the width of W^V and W^O"),
        (replace(c, norm="pre"), "pre-norm: it has one more norm after each stack"),
        (two, "with two vocabularies: there are two matrices"),
        (learned, "with learned positions: max_length rows"),
        (
            replace(two, positions="learned"),
            "with one table of positions for both languages",
        ),
        (replace(c, tgt_vocab_size=101), "for two vocabularies of one size"),
        (replace(learned, d_model=33, n_heads=11, n_layers=1), "for 1 layer"),
        (replace(two, d_k=5, d_v=9, norm="pre"), "for all of it together"),
        (BASE, "for the paper's base model"),
        (BIG, "for the paper's big model"),
    ):
        answer, right = need_number(function(config)), parameter_count(config)
        need(answer.is_integer(), f"{answer:,} is no whole number, as counts are")
        off, errors = int(answer) - right, _count_errors(config)
        need(off not in errors, errors.get(off, ""))
        for (a, first), (b, second) in combinations(errors.items(), 2):
            two_mistakes = config is c and off == a + b != 0
            need(not two_mistakes, f"two mistakes: {first}; {second}")
        need(off == 0, f"{off:+,} off {hint}")


def _count_errors(c: TransformerConfig) -> dict[int, str]:
    """By how much each mistake is off, and what to say."""
    N, d, V, both = c.n_layers, c.d_model, c.vocab_size, c.tgt_vocab_size or 0
    attention = 2 * d * c.n_heads * (c.key_size + c.value_size)
    feed_forward = 2 * d * c.d_ff + c.d_ff + d
    layers = 3 * attention + 2 * feed_forward + 10 * d
    pre, learned = c.norm == "pre", c.positions == "learned"
    errors = (
        (-N * 5 * 2 * d, "did you forget the layer norms?"),
        (-N * 5 * d, "a layer norm has a gain and a bias"),
        (
            -N * 2 * d,
            "the decoder layer has three norms, not two (or is b2 forgotten?)",
        ),
        (-N * 2 * c.d_ff, "is b1 forgotten? It is as long as d_ff"),
        (N * 2 * (2 * d + 1) * (4 * d - c.d_ff), "d_ff is c.d_ff, not 4 d_model"),
        (N * 2 * d, "the encoder layer has two norms, not three"),
        (-N * 2 * (c.d_ff + d), "the matrices of the feed-forward have biases (Eq. 2)"),
        (-N * 2 * d * c.d_ff, "the feed-forward has two matrices"),
        (-N * feed_forward, "each layer of both stacks has a feed-forward"),
        (N * 3 * 4 * d, "the attention's matrices have no biases"),
        (-N * attention, "a decoder layer has two attentions: self and cross"),
        (-3 * N * attention // 4, "is W^O forgotten?"),
        (3 * N * (c.n_heads - 1) * attention, "W^Q, W^K, W^V hold all heads already"),
        ((1 - N) * layers, f"the layers count {N} times: each has numbers of its own"),
        ((6 - N) * layers, f"the stacks have {N} layers here, not 6"),
        (-N * (2 * attention + feed_forward + 6 * d), "the decoder is missing"),
        (-N * (attention + feed_forward + 4 * d), "the encoder is missing"),
        (-(V + both) * d, "did you forget the embedding matrix?"),
        ((both or V) * d, "the output is the embedding matrix: it is counted again"),
        ((0 if both else 2 * V) * d, "the embedding matrix is counted three times"),
        (both or V, "the output has no bias: it is the embedding matrix"),
        (0 if pre else 2 * 2 * d, "post-norm has no norm after the stacks"),
        (-2 * d * pre, "pre-norm has one more norm after *each* stack"),
        (-4 * d * pre, "pre-norm has one more norm after each stack"),
        (0 if learned else c.max_length * d, "sinusoids are no parameters"),
        (-c.max_length * d * learned, "learned positions: max_length rows, shared"),
        (c.max_length * d * learned, "one table of positions serves both languages"),
    )
    return {off: message for off, message in reversed(errors) if off}


@exercise
def check_language_model(function: Answer) -> None:
    """`my_language_model(model, ids)`: a decoder from encoder layers."""
    real = PADDED != PAD
    for norm in ("post", "pre"):
        model = shaken_model(norm)
        with errors_mean("sizes that do not fit: the mask is (length, length)"):
            answer = function(model, PADDED)
        width = isinstance(answer, Tensor) and answer.shape == (2, 5, 16)
        need(not width, "these are features: score them by model.logits")
        answer = need_tensor(answer, (2, 5, WORDS))
        for total, what in (
            (answer.sum(-1), "probabilities"),
            (answer.exp().sum(-1), "logarithms of probabilities"),
        ):
            need(not same(total, torch.ones(2, 5)), f"these are {what}: return logits")
        mistakes = [(m[real], why) for m, why in _language_mistakes(model, norm)]
        hint = "embed, stack with a causal mask, logits"
        compare(answer[real], _scores(model, PADDED)[real], mistakes, hint)
        for ids in (PADDED[1:, :3], PADDED[:, :1], torch.arange(3 * 40).view(3, 40)):
            ids, size = ids % WORDS + (ids % WORDS == 0), tuple(ids.shape)
            other = f"at another length: make the mask from ids.size(1) {size}"
            with errors_mean(f"fails {other}"):
                found = function(model, ids)
            compare(found, _scores(model, ids), hint=f"wrong {other}")
        function(model.train(), PADDED)  # and leaves it in train()
    need(
        answer.requires_grad, "no gradient comes through: leave out detach and no_grad"
    )


def _scores(model: Transformer, ids: Tensor) -> Tensor:
    x = model.embed(model.src_embeddings, ids)
    return model.logits(model.encoder(x, causal_mask(ids.size(1))))


def _language_mistakes(model: Transformer, norm: str) -> list[tuple[Tensor, str]]:
    """What PADDED scores, by one mistake each."""
    mask, bare = causal_mask(5), model.src_embeddings(PADDED)
    x = stack = model.embed(model.src_embeddings, PADDED)
    late = model.embed(model.src_embeddings, PADDED, 1)
    for layer in model.encoder.layers:
        stack = layer(stack, mask)
    features = [
        (model.encoder(x, None), "no mask: each position sees its future"),
        (model.encode(PADDED), "the padding mask alone hides no future"),
        (model.encoder(x, ~mask), "the mask is upside down: True = may look"),
        (model.encoder(x, mask.T), "each position sees its future, not its past"),
        (model.encoder(x, mask.tril(-1)), "each position may look at itself, too"),
        (model.encoder(x, mask | mask.roll(1, 1)), "it sees the next token, too"),
        (model.encoder(bare, mask), "there are no positions: use model.embed"),
        (model.encoder(bare / 4, mask), "embed scales, and adds positions: use it"),
        (model.encoder(late, mask), "positions begin at 0: embed starts there"),
        (model.decoder(x, x, None, mask), "use the encoder's stack: one text only"),
        (model.features(PADDED, PADDED), "that is the translator: one stack is enough"),
        (x, "where is the stack, model.encoder?"),
    ]
    if norm == "pre":
        last = model.encoder.norm
        features += [
            (stack, "pre-norm needs the last norm"),
            (last(last(stack)), "the last norm twice: model.encoder has it already"),
        ]
    else:
        again = nn.functional.layer_norm(stack, (16,))
        features += [(again, "post-norm has no norm after the stack")]
    return [(model.logits(found), message) for found, message in features]


EncoderCase = tuple[EncoderLayer, Tensor, Tensor | None]


def _encoder(layer: EncoderLayer, *inputs: Any) -> Tensor:
    output: Tensor = layer(*inputs)
    return output


def _encoder_case(kind: type[nn.Module]) -> EncoderCase:
    """A layer with shaken norms, and inputs for it."""
    torch.manual_seed(0)
    residuals = nn.ModuleList([kind(16, 0.0) for _ in range(2)])
    layer = EncoderLayer(MultiHeadAttention(16, 2), FeedForward(16, 32), residuals)
    with torch.no_grad():
        for i, p in enumerate(residuals.parameters()):
            p.add_(0.3 * torch.randn(p.shape, generator=seeded(i)))
    return layer.eval(), normal(2, 7, 16).requires_grad_(), padding_mask(SRC)


@exercise
def check_encoder(function: Answer) -> None:
    """`my_encoder(layer, x, src_mask)`: an encoder layer from its parts."""
    for kind in (PostNorm, PreNorm):
        case = _encoder_case(kind)
        fit = "sizes that do not fit: does self-attention get x and the mask?"
        with errors_mean(f"{fit} ({{error}})"):
            answer = need_tensor(function(*case), (2, 7, 16))
        right = _encoder(*case)
        hint = "attention, then feed-forward, each through a residual of its own"
        compare(answer, right, _encoder_mistakes(*case), hint)
        need_gradient(function, _encoder, *case)
        for batch, length in ((1, 1), (3, 9)):
            more = case[0], normal(batch, length, 16), None
            words = f"{batch} sentences of {length} words, no mask"
            compare(function(*more), _encoder(*more), hint=words)


def _encoder_mistakes(
    layer: EncoderLayer, x: Tensor, src_mask: Any
) -> list[tuple[Tensor, str]]:
    """What the layer answers, by one mistake each."""
    attend, last = layer.self_attention, layer.feed_forward
    first, second = layer.residuals

    def own(z: Tensor, mask: Any = src_mask) -> Tensor:
        output: Tensor = attend(z, mask=mask)
        return output

    middle = first(x, own)
    normed = "each sub-layer gets what its residual passes in, not the outer x"
    once = "the second residual is never used"
    return [
        (second(first(x, lambda z: own(z, None)), last), "padding is seen: the mask?"),
        (second(first(x, lambda z: own(x)), last), normed),
        (second(middle, lambda z: last(middle)), normed),
        (first(second(x, own), last), "the residuals are used in another order"),
        (first(middle, last), once),
        (last(middle), once),
        (middle, "the feed-forward is missing"),
        (second(x, last), "the attention is missing"),
        (second(first(x, last), own), "self-attention comes first"),
        (last(own(x)), "no residual is used"),
        (x + own(x) + last(x + own(x)), "no residual is used: only the sum is there"),
    ]


def _decoder(layer: DecoderLayer, *inputs: Any) -> Tensor:
    output: Tensor = layer(*inputs)
    return output


DecoderCase = tuple[DecoderLayer, Tensor, Tensor, Tensor | None, Tensor | None]


def _decoder_case(kind: type[nn.Module]) -> DecoderCase:
    """A layer with shaken norms, and inputs for it."""
    layer = new_decoder_layer()
    layer.residuals = nn.ModuleList([kind(16, 0.0) for _ in range(3)])
    with torch.no_grad():
        for i, p in enumerate(layer.residuals.parameters()):
            p.add_(0.3 * torch.randn(p.shape, generator=seeded(i)))
    x, memory = (normal(2, n, 16, seed=n).requires_grad_() for n in (5, 7))
    return layer.eval(), x, memory, padding_mask(SRC), causal_mask(5)


@exercise
def check_decoder(function: Answer) -> None:
    """`my_decoder(layer, x, memory, src_mask, tgt_mask)`: a layer repaired."""
    for kind in (PostNorm, PreNorm):
        case = _decoder_case(kind)
        fit = "sizes that do not fit: are queries from x, with the right masks?"
        with errors_mean(f"{fit} ({{error}})"):
            answer = need_tensor(function(*case), (2, 5, 16))
        every_residual = _need_sight(function, case)
        need(
            kind is PreNorm or every_residual,
            "one of the three residuals is never used",
        )
        right = _decoder(*case)
        only = "right for PostNorm only: does each sub-layer get the *normed* x?"
        need(kind is PostNorm or (every_residual and same(answer, right)), only)
        hint = "are the order and masks those of Figure 1?"
        compare(answer, right, _decoder_mistakes(*case), hint)
        need_gradient(function, _decoder, *case)
        for batch, tgt, src in ((1, 1, 1), (3, 9, 4)):
            x, memory = normal(batch, tgt, 16), normal(batch, src, 16, seed=1)
            for mask in (None, causal_mask(tgt)):
                more = case[0], x, memory, None, mask
                words = f"{batch} sentences, {src} to {tgt} words"
                compare(function(*more), _decoder(*more), hint=words)


def _need_sight(function: Answer, case: DecoderCase) -> bool:
    """Whether the output feels every residual, once it feels no more than it may."""
    layer, x, memory, *_ = case
    answer = function.let(*case)
    gradient = "no gradient comes through: leave out detach and no_grad"
    need(answer.requires_grad, gradient)

    def felt(part: Tensor, *by: Tensor) -> tuple[Tensor | None, ...]:
        total = part.square().sum()
        return torch.autograd.grad(total, by, retain_graph=True, allow_unused=True)

    seen, *used = felt(answer, memory, *layer.residuals.parameters())
    if seen is None or not seen.any():
        raise Mistake("the memory is never read")
    (future,) = felt(answer[:, 0], x)
    sees = "position 0 sees its future: is tgt_mask used in self-attention?"
    need(future is None or not future[:, 1:].any(), sees)
    padding = "padding of the source is seen: which mask does cross-attention need?"
    need(not seen[1, 3:].any(), padding)
    return all(gradient is not None for gradient in used)


def _decoder_mistakes(
    layer: DecoderLayer, x: Tensor, memory: Tensor, src_mask: Any, tgt_mask: Any
) -> list[tuple[Tensor, str]]:
    """What the layer answers, by one mistake each."""

    def own(z: Tensor, attention: nn.Module = layer.self_attention) -> Tensor:
        return attention(z, mask=tgt_mask)

    def cross(z: Tensor, attention: nn.Module = layer.cross_attention) -> Tensor:
        return attention(z, memory, src_mask)

    def run(*sublayers: Callable[[Tensor], Tensor], order: Any = (0, 1, 2)) -> Tensor:
        z = x
        for i, sublayer in zip(order, sublayers, strict=False):
            z = layer.residuals[i](z, sublayer)
        return z

    last = layer.feed_forward
    mixed = "the residuals are used in another order"
    orders = list(permutations(range(3)))[1:]
    return [
        *((run(own, cross, last, order=order), mixed) for order in orders),
        (run(own, last, cross), "cross-attention comes before the feed-forward"),
        (run(cross, own, last), "self-attention comes first"),
        (run(cross, own, last, order=(1, 0, 2)), "self-attention comes first"),
        (run(own, cross), "the feed-forward is missing"),
        (
            run(
                lambda z: own(z, layer.cross_attention),
                lambda z: cross(z, layer.self_attention),
                last,
            ),
            "the two attentions have changed places",
        ),
    ]
