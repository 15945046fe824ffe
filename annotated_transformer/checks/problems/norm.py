"""Layer normalization, problem 1.5."""

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
    need_gradient,
    need_tensor,
    normal,
    same,
    seeded,
    verdict,
)

__all__ = ["check_layer_norm"]

KEEPDIM = "the shapes don't fit: is it the last axis (-1), and is it kept (keepdim)?"


def check_layer_norm(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`layer_norm(x, gain, bias)`, eps 1e-5, over the last axis (§3.1).

    Parts: "statistics" (gain 1, bias 0), "gain" (and bias), "eps". Where eps is an
    argument, it must be used.
    """
    return verdict(function, part, seed, statistics=_statistics, gain=_gain, eps=_eps)


def norm_case(seed: int, width: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Numbers to norm, all axes alike so that mistakes run; a gain and a bias."""
    g = seeded(seed + 20)
    x = 3 * torch.randn(5, 5, width, generator=g) + 2
    gain, bias = torch.randn(2, width, generator=g)
    return x, gain, bias


def normed(function: Answer, x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    """What it answers, for x and for pieces of x with other axes."""
    with errors_mean(KEEPDIM, RuntimeError, IndexError):
        answer = function(x, gain, bias)
        for piece in (x[:2, :3], x[0, :3]):
            function(piece, gain, bias)
    return need_tensor(answer, tuple(x.shape))


def reference(x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    """PyTorch's own layer norm."""
    return F.layer_norm(x, x.shape[-1:], gain, bias)


def wrong_norms(x: Tensor) -> Mistakes:
    """What is known to be wrong where gain is 1 and bias 0, each with its cause."""

    def version(axis: int | tuple = -1, correction: int = 0) -> Tensor:
        variance = x.var(axis, correction=correction, keepdim=True)
        return (x - x.mean(axis, keepdim=True)) / torch.sqrt(variance + 1e-5)

    centered = x - x.mean(-1, keepdim=True)
    variance, square = x.var(-1, correction=0, keepdim=True), x.square()
    rms = "that is RMS norm: subtract the mean before you square"
    length = "divided by the length: the variance is the MEAN of the squares"
    spread = (x - x.amin(-1, keepdim=True)) / (x.amax(-1) - x.amin(-1))[..., None]
    yield version(correction=1), "you divide by d - 1: that is Bessel's correction"
    yield version(0), "that is over the batch: take the last axis"
    yield version(1), "that is over the length: take the last axis"
    yield version((1, 2)), "that is over length and width: take the last axis only"
    yield version((0, 1)), "that is over batch and length: take the last axis"
    yield version((0, 1, 2)), "one mean for all numbers: take the last axis"
    yield centered / (variance + 1e-5), "you divide by the variance: take its root"
    yield centered * variance.sqrt(), "you multiply by the deviation: divide by it"
    yield x / square.mean(-1, keepdim=True).sqrt(), rms
    yield centered / square.mean(-1, keepdim=True).sqrt(), rms
    yield x / variance.sqrt(), "the mean is not subtracted"
    yield x - x.mean(-1, keepdim=True) / variance.sqrt(), "brackets: (x - mean) / root"
    yield centered, "the division by the standard deviation is missing"
    yield centered / centered.norm(dim=-1, keepdim=True), length
    yield x / x.norm(dim=-1, keepdim=True), length
    absolute = centered.abs().mean(-1, keepdim=True)
    yield centered / absolute, "that is the mean distance: root of the mean square"
    yield spread, "that is from 0 to 1: subtract the mean, divide by the deviation"
    for eps in (1e-2, 1e-3, 1e-6, 1e-8):
        other = centered / torch.sqrt(variance + eps)
        yield other, f"is your eps {eps}? It is 1e-5, inside the root"
    yield torch.ones_like(x), "all are 1: are gain and bias swapped?"
    yield -version(), "the sign: x - mean, not mean - x"


def _statistics(function: Answer, seed: int) -> None:
    x, _, _ = norm_case(seed)
    ones, zeros = torch.ones(5), torch.zeros(5)

    hint = "PyTorch's F.layer_norm"
    right = F.layer_norm(x, (5,))
    compare(normed(function, x, ones, zeros), right, wrong_norms(x), hint)
    wide, *_ = norm_case(seed, 512)
    right = F.layer_norm(wide, (512,))
    answer = normed(function, wide, torch.ones(512), torch.zeros(512))
    compare(answer, right, hint="with 512 features")
    away = 100 + normal(3, 4, 64)  # the mean is far above the deviation
    answer = normed(function, away, torch.ones(64), torch.zeros(64))
    compare(answer, F.layer_norm(away, (64,)), hint="a mean of 100", tolerance=1e-3)
    need_gradient(function, reference, x, ones, zeros, first=1)


def _gain(function: Answer, seed: int) -> None:
    x, gain, bias = norm_case(seed)
    y = normed(function, x, torch.ones(5), torch.zeros(5))
    after = "the bias comes after the gain, and is not scaled by it"
    mistakes = (
        (y, "gain and bias are forgotten"),
        (y + bias, "the gain is forgotten"),
        (gain * y, "the bias is forgotten"),
        (gain * (y + bias), after),
        (bias * y + gain, "gain and bias are swapped"),
    )
    answer = normed(function, x, gain, bias)
    compare(answer, gain * y + bias, mistakes, "the norm, times gain, plus bias")
    if same(answer, reference(x, gain, bias)):
        need_gradient(function, reference, x, gain, bias)


def _eps(function: Answer, seed: int) -> None:
    x, _, _ = norm_case(seed)
    constant, plain = torch.full((2, 5), 3.0 + seed), (torch.ones(5), torch.zeros(5))
    # Summed in another order, the mean of equal numbers may be off in its last digit.
    if not same(function.let(constant.clone(), *plain), torch.zeros(2, 5), 1e-3):
        _statistics(function, seed)  # if that is wrong, it is the cause
        raise Mistake("a constant row should give the bias: is there an eps?")
    small = x / 1000
    if not same(function.let(small.clone(), *plain), F.layer_norm(small, (5,))):
        _statistics(function, seed)  # if that is wrong, it is the cause
        raise Mistake("wrong for a tiny variance: is your eps (1e-5) inside the root?")
    if len(signature(function.function).parameters) < 4:
        return  # a fixed eps
    own = function.let(small.clone(), *plain, 0.01)
    if not same(own, F.layer_norm(small, (5,), eps=0.01)):
        raise Mistake("eps is an argument: called with 0.01, yours takes another one")
