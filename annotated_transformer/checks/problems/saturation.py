"""The root of d_k measured, problem 1.7."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from annotated_transformer.checks.common import (
    Function,
    Mistake,
    ask,
    compare,
    need,
    need_number,
    seeded,
    sizes,
    verdict,
)

__all__ = ["check_saturation"]


def check_saturation(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`saturation(query, key, scaled)`: a dict of three means over the queries.

    Parts: "std" of all scores; "largest" weight; "gradient", the length of the gradient
    of a query's largest weight with respect to its scores.
    """
    return verdict(
        function,
        part,
        seed,
        std=lambda f, seed: _measured(f, seed, "std"),
        largest=lambda f, seed: _measured(f, seed, "largest"),
        gradient=lambda f, seed: _measured(f, seed, "gradient"),
    )


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


def _measured(function: Function, seed: int, name: str) -> None:
    g = seeded(seed)
    n_queries, n_keys, d_k = sizes(seed, 64, 12, 48)
    n_queries, d_k = n_queries * 3, max(d_k, 5)
    query, key = (
        torch.randn(n_queries, d_k, generator=g),
        torch.randn(n_keys, d_k, generator=g),
    )
    raw = query @ key.mT
    for scaled in (True, False):
        scores = raw / math.sqrt(d_k) if scaled else raw
        found = ask(function, query, key, scaled)
        need(isinstance(found, dict), "return a dict with std, largest and gradient")
        need(name in found, f"the dict has no {name!r}")
        if found[name] is None or found[name] is ...:
            raise Mistake(f"not done yet: {name!r} is empty")
        number = need_number(found[name])
        weights = scores.softmax(-1)
        gradient = saturation_of(scores)["gradient"]
        other_scale = raw if scaled else raw / math.sqrt(d_k)
        sideways = scores.clone().requires_grad_()
        columns = sideways.softmax(0).amax(-1)
        columns.sum().backward()
        slope = sideways.grad.norm(dim=-1) if sideways.grad is not None else scores
        every = top_gradient(scores)
        mistakes: dict[str, list[tuple[float, str]]] = {
            "std": [
                (scores.var().item(), "that is the variance: take its root"),
                (scores.mean().item(), "that is the mean of the scores"),
                (weights.std().item(), "that is of the weights: take the scores"),
            ],
            "largest": [
                (
                    weights.max().item(),
                    "the largest of all: take it for each query, then the mean",
                ),
                (weights.mean().item(), "that is the mean weight, always 1 / keys"),
                (
                    columns.mean().item(),
                    "is your softmax over the keys, the last axis?",
                ),
                (
                    scores.max(-1).values.mean().item(),
                    "that is the largest score: take the weights",
                ),
            ],
            "gradient": [
                (
                    every.norm().item(),
                    "not the mean over the queries: what did you sum?",
                ),
                (0.0, "a gradient of 0: the weights of a query always add up to 1"),
                (slope.mean().item(), "is your softmax over the keys, the last axis?"),
                (
                    gradient * n_queries,
                    "a sum over queries: take the mean of their lengths",
                ),
                (gradient / n_queries, "the mean was taken before backward, and again"),
                (
                    every.amax(-1).mean().item(),
                    "take the whole gradient, not the largest entry",
                ),
            ],
        }
        swapped = (saturation_of(other_scale)[name], "`scaled` is ignored, or reversed")
        by_d_k = (saturation_of(raw / d_k)[name], "you divided by d_k, not by its root")
        compare(
            number,
            saturation_of(scores)[name],
            [*mistakes[name], swapped, by_d_k],
            f"{name!r} should be {saturation_of(scores)[name]:.4f}, not {number:.4f} "
            f"(scaled={scaled})",
        )
