"""Layer normalization, problem 1.5."""

from inspect import signature
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from annotated_transformer.checks.common import (
    Function,
    Mistake,
    ask,
    compare,
    need,
    need_tensor,
    same,
    seeded,
    verdict,
)

__all__ = ["check_layer_norm"]

DIVISION_MISSING = "the division by the standard deviation is missing"


def check_layer_norm(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`layer_norm(x, gain, bias)`, eps 1e-5, over the last axis (§3.1).

    Parts: "statistics" (gain 1, bias 0), "gain" (and bias), "eps". Where eps is an
    argument, it must be used.
    """
    return verdict(function, part, seed, statistics=_statistics, gain=_gain, eps=_eps)


def _norm_case(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    g = seeded(seed + 20)
    x = 3 * torch.randn(5, 5, 5, generator=g) + 2  # all alike, so that mistakes run
    gain, bias = torch.randn(2, 5, generator=g)
    return x, gain, bias


def _norm_of(function: Function, x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    given = x.clone()
    try:
        answer = function(given, gain.clone(), bias.clone())
        for piece in (x[:2, :3], x[0, :3]):
            function(piece.clone(), gain, bias)
    except (RuntimeError, IndexError):
        raise Mistake(
            "the shapes don't fit: is it the last axis (-1), and is it kept (keepdim)?"
        ) from None
    need(answer is not None and answer is not ..., "not done yet")
    need(
        torch.equal(given, x),
        "the caller's x has changed: compute new numbers, don't write into it",
    )
    return need_tensor(answer, tuple(x.shape))


def _statistics(function: Function, seed: int) -> None:
    x, _, _ = _norm_case(seed)

    def version(axis: Any = -1, correction: int = 0, root: bool = True) -> Tensor:
        mean = x.mean(axis, keepdim=True)
        variance = x.var(axis, correction=correction, keepdim=True) + 1e-5
        return (x - mean) / (variance.sqrt() if root else variance)

    std = x.std(-1, correction=0, keepdim=True)
    compare(
        _norm_of(function, x, torch.ones(5), torch.zeros(5)),
        version(),
        (
            (version(correction=1), "you divide by d - 1: that is Bessel's correction"),
            (version(root=False), "you divide by the variance: take its root"),
            (version(0), "that is over the batch: take the last axis"),
            (version(1), "that is over the length: take the last axis"),
            (version((1, 2)), "that is over length and width: take the last axis only"),
            (version((0, 1, 2)), "one mean for all numbers: take the last axis"),
            (x / std, "the mean is not subtracted"),
            (x - x.mean(-1, keepdim=True), DIVISION_MISSING),
        ),
        "PyTorch finds other numbers",
    )


def _gain(function: Function, seed: int) -> None:
    x, gain, bias = _norm_case(seed)
    y = _norm_of(function, x, torch.ones(5), torch.zeros(5))
    compare(
        _norm_of(function, x, gain, bias),
        gain * y + bias,
        (
            (y, "gain and bias are forgotten"),
            (y + bias, "the gain is forgotten"),
            (gain * y, "the bias is forgotten"),
            (
                gain * (y + bias),
                "the bias comes after the gain, and is not scaled by it",
            ),
            (bias * y + gain, "gain and bias are swapped"),
        ),
        "PyTorch finds other numbers",
    )


def _eps(function: Function, seed: int) -> None:
    x, _, _ = _norm_case(seed)
    constant, plain = torch.full((2, 5), 3.0 + seed), (torch.ones(5), torch.zeros(5))
    if not same(ask(function, constant, *plain), torch.zeros(2, 5)):
        _statistics(function, seed)  # if that is wrong, it is the cause
        raise Mistake("a constant row should give the bias: is there an eps?")
    small = x / 1000
    answer = ask(function, small, *plain)
    if not same(answer, F.layer_norm(small, (5,))):
        _statistics(function, seed)  # if that is wrong, it is the cause
        raise Mistake(
            "wrong where the variance is tiny: is your eps (1e-5) inside the root?"
        )
    if len(signature(function).parameters) < 4:
        return  # a fixed eps
    own = ask(function, small, *plain, 0.01)
    if not same(own, F.layer_norm(small, (5,), eps=0.01)):
        raise Mistake("eps is an argument: called with 0.01, yours takes another one")
