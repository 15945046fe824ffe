"""RMS norm and LayerScale, problem 4.1."""

from collections.abc import Callable
from inspect import signature

import torch
import torch.nn.functional as F
from torch import Tensor

from annotated_transformer.checks.common import (
    Answer,
    Function,
    Mistake,
    Mistakes,
    compare,
    errors_mean,
    need,
    need_gradient,
    need_tensor,
    normal,
    same,
    seeded,
    sizes,
    verdict,
)
from annotated_transformer.checks.problems.norm import KEEPDIM, norm_case

__all__ = ["check_root_mean_square", "check_scaled_block"]

EPS = 1e-5
Layer = Callable[[Tensor], Tensor]


def check_root_mean_square(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`rms_norm(x, gain, eps)`: over the last axis; nothing is subtracted.

    Parts: "norm" (and gain), "eps".
    """
    return verdict(function, part, seed, norm=_norm, eps=_eps)


def reference(x: Tensor, gain: Tensor, eps: float = EPS) -> Tensor:
    """PyTorch's own RMS norm."""
    return F.rms_norm(x, x.shape[-1:], gain, eps)


def normed(function: Answer, x: Tensor, gain: Tensor) -> Tensor:
    """What it answers, for x and for pieces of x with other axes."""
    with errors_mean(KEEPDIM, RuntimeError, IndexError):
        answer = function(x, gain)
        for piece in (x[:2, :3], x[0, :3]):
            function(piece, gain)
    return need_tensor(answer, tuple(x.shape))


def wrong_norms(x: Tensor) -> Mistakes:
    """What is known to be wrong where the gain is 1, each with its cause."""
    square = x.square().mean(-1, keepdim=True)
    away = x - x.mean(-1, keepdim=True)
    spread = away / (x.var(-1, correction=0, keepdim=True) + EPS).sqrt()

    def over(*axes: int) -> Tensor:
        return x / (x.square().mean(axes, keepdim=True) + EPS).sqrt()

    means = "the mean is subtracted: that is layer norm. RMS norm leaves it in"
    length = "divided by the length: the MEAN of the squares is wanted, not their sum"
    yield spread, means
    yield away / square.sqrt(), means
    yield x / x.std(-1, keepdim=True), "the standard deviation subtracts a mean inside"
    yield x / x.std(-1, correction=0, keepdim=True), means
    yield x / x.norm(dim=-1, keepdim=True), length
    yield x / (square + EPS), "divided by the mean square: take its root"
    yield x * (square + EPS).sqrt(), "multiplied by the root: divide by it"
    yield x / x.abs().mean(-1, keepdim=True), "a mean of absolute values: of squares"
    yield x / x.mean(-1, keepdim=True), "divided by the mean: square the numbers first"
    yield 2 * over(-1), "times 1 + gain? This gain is the whole factor"
    yield over(0), "that is over the batch: take the last axis"
    yield over(1), "that is over the length: take the last axis"
    yield over(1, 2), "that is over length and width: take the last axis only"
    yield over(0, 1, 2), "one root for all numbers: take the last axis"
    n = x.size(-1)
    bessel = x / (x.square().sum(-1, keepdim=True) / (n - 1) + EPS).sqrt()
    yield bessel, "divided by d - 1: no mean was estimated, so divide by d"
    for eps in (1e-2, 1e-3):
        yield x / (square + eps).sqrt(), f"is your eps {eps}? It is {EPS}"


def _norm(function: Answer, seed: int) -> None:
    x, gain, _ = norm_case(seed)
    ones = torch.ones(5)
    right = reference(x, ones)
    answer = normed(function, x, ones)
    compare(answer, right, wrong_norms(x), "x over the root of its mean square")
    wide, *_ = norm_case(seed, 512)
    answer = normed(function, wide, torch.ones(512))
    compare(answer, reference(wide, torch.ones(512)), hint="with 512 features")
    mistakes = (
        (right, "the gain is forgotten"),
        (right * (1 + gain), "times 1 + gain: this gain is the whole factor"),
        (right + gain, "the gain is a factor: multiply"),
        (reference(x * gain, ones), "the gain comes after the division"),
        (right / gain, "divided by the gain: multiply"),
    )
    compare(normed(function, x, gain), right * gain, mistakes, "times the gain")
    need_gradient(function, reference, x, gain)


def _eps(function: Answer, seed: int) -> None:
    x, _, _ = norm_case(seed)
    ones, small = torch.ones(5), x / 1000
    nothing = function.let(torch.zeros(2, 5), ones)
    if not same(nothing, torch.zeros(2, 5)):
        _norm(function, seed)  # if that is wrong, it is the cause
        raise Mistake("a row of zeros should stay zeros: is there an eps?")
    if not same(function.let(small.clone(), ones), reference(small, ones)):
        _norm(function, seed)
        raise Mistake("wrong for tiny numbers: is eps (1e-5) added inside the root?")
    # The first two arguments alone: eps was written as a number.
    if len(signature(function.function).parameters) < 3:
        raise Mistake("eps is the third argument: keep it")
    own = function.let(small.clone(), ones, 0.01)
    if not same(own, reference(small, ones, 0.01)):
        raise Mistake("eps is an argument: called with 0.01, yours takes another one")


def check_scaled_block(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`scaled_block(x, norm, sublayer, scale)`: pre-norm, with LayerScale."""
    return verdict(function, part, seed, block=_block)


def right_block(x: Tensor, norm: Layer, sublayer: Layer, scale: Tensor) -> Tensor:
    """The stream as it is, plus the branch, number by number times its scale."""
    return x + scale * sublayer(norm(x))


def wrong_blocks(x: Tensor, norm: Layer, sublayer: Layer, scale: Tensor) -> Mistakes:
    """What is known to be wrong, each with its cause."""
    branch = sublayer(norm(x))
    stream = "the scale is on the stream, too: it belongs on the branch alone"
    yield x + branch, "the scale is not used"
    yield scale * (x + branch), stream
    yield scale * x + branch, "the scale is on the stream: it belongs on the branch"
    yield scale * branch, "where is the residual? Add x"
    yield branch, "where is the residual? Add x, and use the scale"
    yield norm(x) + scale * branch, "the stream itself is normed: add x as it came"
    yield norm(x + scale * sublayer(x)), "that is post-norm: norm what the layer reads"
    yield norm(x + scale * branch), "the stream is normed at the end: leave it"
    yield x + scale * sublayer(x), "the norm is missing: the layer reads norm(x)"
    yield x + sublayer(scale * norm(x)), "the scale comes after the layer, not before"
    yield x + scale * norm(sublayer(x)), "the norm comes before the layer, not after"
    yield x + norm(scale * x), "the layer is missing"
    yield x + scale * norm(x), "the layer is missing"
    yield x - scale * branch, "the sign: the branch is added"
    yield x + (1 + scale) * branch, "times 1 + scale: this scale is the whole factor"
    yield x + scale.mean() * branch, "one factor for all: each channel has its own"
    yield x + branch / scale, "divided by the scale: multiply"
    yield x + branch + scale, "the scale is a factor: multiply"
    yield x + scale[:, None] * branch, "the scale runs along the last axis"


def _block(function: Answer, seed: int) -> None:
    for width in (5, sizes(seed, 7)[0]):
        _block_of(function, seed, width)


def _block_of(function: Answer, seed: int, width: int) -> None:
    x = 2 * normal(5, 5, width, seed=seed) + 1
    matrix = torch.randn(width, width, generator=seeded(seed + 1))
    scale = torch.rand(width, generator=seeded(seed + 2)) + 0.1
    calls = []

    def norm(x: Tensor) -> Tensor:
        return reference(x, torch.full(x.shape[-1:], 1.5))

    def sublayer(x: Tensor) -> Tensor:
        calls.append(1)
        return (x @ matrix).tanh()

    answer = need_tensor(function(x, norm, sublayer, scale), tuple(x.shape))
    need(len(calls) < 2, f"the layer is called {len(calls)} times: call it once")
    right = right_block(x, norm, sublayer, scale)
    wrong = wrong_blocks(x, norm, sublayer, scale) if width == 5 else ()
    compare(answer, right, wrong, f"x + scale * branch, width {width}")
    need_gradient(function, right_block, x, norm, sublayer, scale)
