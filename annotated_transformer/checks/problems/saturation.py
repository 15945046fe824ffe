"""The root of d_k measured, problem 1.7."""

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from annotated_transformer.checks.common import (
    Answer,
    Function,
    Mistake,
    Mistakes,
    compare,
    need,
    need_number,
    seeded,
    sizes,
    verdict,
)

__all__ = ["check_saturation"]

AXIS = "is your softmax over the keys, the last axis?"


def check_saturation(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`saturation(query, key, scaled)`: a dict of three means over the queries.

    Parts: "std" of all scores; "largest" weight; "gradient", the length of the gradient
    of a query's largest weight with respect to its scores.
    """
    names = ("std", "largest", "gradient")
    parts = {name: partial(_measured, name=name) for name in names}
    return verdict(function, part, seed, **parts)


def top_gradient(scores: Tensor) -> Tensor:
    """The gradient of each row's largest weight with respect to its scores."""
    weights = scores.softmax(-1)
    top = weights.max(-1, keepdim=True)
    return top.values * (F.one_hot(top.indices[:, 0], scores.size(-1)) - weights)


def saturation_of(scores: Tensor) -> dict[str, float]:
    """The three numbers that are asked for, from scores (query, key)."""
    return {
        "std": scores.std().item(),
        "largest": scores.softmax(-1).amax(-1).mean().item(),
        "gradient": top_gradient(scores).norm(dim=-1).mean().item(),
    }


def wrong_std(scores: Tensor) -> Mistakes:
    """Numbers that are not the standard deviation of the scores."""
    weights = scores.softmax(-1)
    yield scores.var().item(), "that is the variance: take its root"
    whole = "you divided by the number of scores: scores.std() divides by one less"
    yield scores.std(correction=0).item(), whole
    yield scores.mean().item(), "that is the mean of the scores"
    yield weights.std().item(), "that is of the weights: take the scores"
    yield scores.std(-1).mean().item(), "a mean of rows: take all scores at once"


def wrong_largest(scores: Tensor) -> Mistakes:
    """Numbers that are not the mean largest weight."""
    weights, columns = scores.softmax(-1), scores.softmax(0).amax(-1)
    of_all = "the largest of all: take it for each query, then the mean"
    yield weights.max().item(), of_all
    yield weights.mean().item(), "that is the mean weight, always 1 / keys"
    yield columns.mean().item(), AXIS
    largest = scores.max(-1).values.mean().item()
    yield largest, "that is the largest score: take the weights"


def wrong_gradient(scores: Tensor) -> Mistakes:
    """Numbers that are not the mean length of the gradient."""
    every, right = top_gradient(scores), saturation_of(scores)["gradient"]
    sideways = scores.clone().requires_grad_()
    (slope,) = torch.autograd.grad(sideways.softmax(0).amax(-1).sum(), sideways)
    n, entry = len(scores), every.amax(-1).mean().item()
    yield every.norm().item(), "not the mean over the queries: what did you sum?"
    yield 0.0, "a gradient of 0: the weights of a query always add up to 1"
    yield slope.norm(dim=-1).mean().item(), AXIS
    yield right * n, "a sum over queries: take the mean of their lengths"
    yield right / n, "the mean was taken before backward, and again"
    sizes_of = "the length is the root of the sum of squares"
    yield every.square().sum(-1).mean().item(), f"{sizes_of}: the root is missing"
    yield every.abs().sum(-1).mean().item(), f"{sizes_of}, not the sum of sizes"
    yield every.abs().mean().item(), f"{sizes_of}, not the mean of sizes"
    yield every.sum(0).norm().item(), "the lengths first, then their mean"
    yield every.mean(0).norm().item(), "the lengths first, then their mean"
    yield entry, "take the whole gradient, not the largest entry"


WRONG = {"std": wrong_std, "largest": wrong_largest, "gradient": wrong_gradient}


def _measured(function: Answer, seed: int, *, name: str) -> None:
    for first in ((64, 12, 48), (64, 12, 7)):
        n_queries, n_keys, d_k = sizes(seed, *first)
        n_queries, d_k = n_queries * 3, max(d_k, 5)
        g = seeded(seed)
        query = torch.randn(n_queries, d_k, generator=g)
        key = torch.randn(n_keys, d_k, generator=g)
        for scaled in (True, False):
            _compared(function, query, key, scaled, name)


def _compared(
    function: Answer, query: Tensor, key: Tensor, scaled: bool, name: str
) -> None:
    found = function(query, key, scaled)
    need(isinstance(found, dict), "return a dict with std, largest and gradient")
    need(name in found, f"the dict has no {name!r}")
    if found[name] is None or found[name] is ...:
        raise Mistake(f"not done yet: {name!r} is empty")
    raw, d_k = query @ key.mT, key.size(-1)
    both = {True: raw / math.sqrt(d_k), False: raw}
    swapped = saturation_of(both[not scaled])[name]
    mistakes = (
        *WRONG[name](both[scaled]),
        (swapped, "`scaled` is ignored, or reversed"),
        (saturation_of(raw / d_k)[name], "you divided by d_k, not by its root"),
    )
    right = saturation_of(both[scaled])[name]
    hint = f"that is {name!r} with scaled={scaled}"
    compare(need_number(found[name]), right, mistakes, hint)
