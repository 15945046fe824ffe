"""Checks of chapter 07, Residuals and layer normalization: one for each exercise."""

from typing import Any

import torch
import torch.nn.functional as F

from annotated_transformer.checks.common import Answer, exercise, seeded
from annotated_transformer.checks.common import close as same

__all__ = ["check_block", "check_norm_backward", "check_rms_norm"]


@exercise
def check_rms_norm(function: Answer) -> str:
    """`my_rms_norm(x, gain)`: divided by the root of the mean square."""
    g = seeded(21)
    x, gain = torch.randn(4, 3, 5, generator=g) + 1, torch.randn(5, generator=g)
    given = x.clone()
    try:
        answer = function(given, gain)
    except (RuntimeError, IndexError):
        return "the shapes don't fit: does the mean keep its axis (keepdim)?"
    if not torch.equal(given, x):
        return "the caller's x has changed: compute new numbers, don't write into it"
    square = x.square()
    for wrong, mistake in (
        (gain * F.layer_norm(x, (5,)), "you subtract the mean: that is layer norm"),
        (
            gain * x / x.std(-1, keepdim=True, correction=0),
            "the standard deviation has the mean taken out: square x itself",
        ),
        (gain * x / square.mean(-1, keepdim=True), "take the root of the mean square"),
        (
            gain * x / x.norm(dim=-1, keepdim=True),
            "that is the root of the sum: take the mean",
        ),
        (
            gain * x / square.mean().sqrt(),
            "one size for all positions: take the last axis",
        ),
        (
            gain * x / square.mean(0).sqrt(),
            "that is over the batch: take the last axis",
        ),
        (
            gain * x / square.mean(1, keepdim=True).sqrt(),
            "that is over the length: take the last axis",
        ),
        (
            gain * x / x.mean(-1, keepdim=True).abs(),
            "square first, then take the mean",
        ),
        (F.rms_norm(x, (5,)), "the gain is forgotten"),
    ):
        if same(answer, wrong, 1e-3):
            return mistake
    if not same(answer, F.rms_norm(x, (5,), gain, 1e-5)):
        return "PyTorch's F.rms_norm finds other numbers"
    small = x / 1000
    if not same(function(small, gain), F.rms_norm(small, (5,), gain, 1e-5)):
        return "wrong for tiny x: is your eps (1e-5) inside the root?"
    return "correct"


@exercise
def check_block(function: Answer) -> str:
    """`my_block(x, norm, dropout, sublayer)`: pre-norm, repaired."""
    x = torch.randn(2, 3, 5, generator=seeded(22))
    given, seen = x.clone(), []

    def norm(x: Any) -> Any:
        return 2 * F.layer_norm(x, (5,))  # as if trained

    def sublayer(z: Any) -> Any:
        seen.append(z.clone())
        return z.roll(1, -1) ** 2

    def dropout(z: Any) -> Any:
        return z * torch.tensor([0.0, 2.0, 2.0, 0.0, 2.0])

    answer = function(norm, dropout, given, sublayer)
    if not torch.equal(given, x):
        return "the caller's x has changed: += writes into it, use x + ..."
    if len(seen) != 1:
        return f"the sub-layer is called {len(seen)} times, not once"
    y = norm(x)
    branch = y.roll(1, -1) ** 2
    raw = x.roll(1, -1) ** 2
    for wrong, mistake in (
        (dropout(y + branch), "nothing is repaired yet"),
        (y + branch, "dropout is gone, and the road goes through the norm"),
        (y + dropout(branch), "the road past the sub-layer goes through the norm"),
        (dropout(x + branch), "dropout falls on the sum: it tears holes into x"),
        (x + dropout(y + branch), "the branch carries the normed x once more"),
        (x + branch, "dropout is gone"),
        (x + dropout(y).roll(1, -1) ** 2, "dropout belongs behind the sub-layer"),
        (x + dropout(raw), "the sub-layer gets x without its norm"),
        (norm(x + dropout(raw)), "that is post-norm: right, but not what was asked"),
        (dropout(branch), "where is the addition?"),
        (x + dropout(norm(raw)), "the norm belongs in front of the sub-layer"),
        (x + norm(dropout(raw)), "the norm belongs in front of the sub-layer"),
        (norm(x + dropout(branch)), "one norm too many: the sum stays as it is"),
    ):
        if same(answer, wrong):
            return mistake
    if not same(answer, x + dropout(branch)):
        return "other numbers: draw the two roads, and follow each one"
    return "correct"


@exercise
def check_norm_backward(function: Answer) -> str:
    """`my_backward(y, sigma, gain, upstream)`: the gradient of layer norm."""
    rng = seeded(23)
    x = (3 * torch.randn(2, 3, 5, generator=rng)).requires_grad_()
    upstream, gain = torch.randn(2, 3, 5, generator=rng), torch.randn(5, generator=rng)
    F.layer_norm(x, (5,), gain).backward(upstream)
    y = F.layer_norm(x, (5,)).detach()
    sigma = (x.detach().var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    try:
        answer = function(y, sigma, gain, upstream)
    except RuntimeError:
        return "the shapes don't fit: do your means keep their axis (keepdim)?"
    g = upstream * gain

    def mean(z: Any) -> Any:
        return z.mean(-1, keepdim=True)

    without = upstream - mean(upstream) - y * mean(upstream * y)
    for wrong, mistake in (
        (
            g / sigma,
            "only the first term: each x also moves the mean and the deviation",
        ),
        ((g - mean(g)) / sigma, "the deviation moves, too: the term with y is missing"),
        ((g - y * mean(g * y)) / sigma, "the mean moves, too: a term is missing"),
        (g - mean(g) - y * mean(g * y), "divide by sigma at the end"),
        (without / sigma, "first bring the gradient past the gain"),
        (gain * without / sigma, "the gain comes before the means"),
        (
            (g - 5 * mean(g) - 5 * y * mean(g * y)) / sigma,
            "means, not sums: divide by d",
        ),
        ((g - mean(g) + y * mean(g * y)) / sigma, "both terms are subtracted"),
        ((g - g.mean() - y * (g * y).mean()) / sigma, "means over the last axis only"),
        ((g - mean(g) - y * mean(g * y)) * sigma, "divide by sigma, don't multiply"),
    ):
        if same(answer, wrong):
            return mistake
    right = x.grad is not None and same(answer, x.grad)
    return "correct" if right else "autograd finds other numbers"
