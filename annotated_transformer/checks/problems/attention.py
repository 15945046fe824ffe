"""Attention, problem 1.2."""

import math
from typing import Any

import torch
from torch import Tensor

from annotated_transformer.attention import fused_attention
from annotated_transformer.checks.common import (
    Function,
    Mistake,
    ask,
    compare,
    need,
    need_tensor,
    same,
    seeded,
    sizes,
    verdict,
)

__all__ = ["check_attention"]


def check_attention(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`attention(query, key, value, mask)`: the output of Eq. 1 (§3.2.1).

    Parts: "average" (all may look), "mask", "nowhere" (a query that may look nowhere).
    """
    return verdict(function, part, seed, average=_average, mask=_mask, nowhere=_nowhere)


def attention_case(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries, keys, values, and a mask that leaves each query some keys."""
    g = seeded(seed)
    batch, n_queries, n_keys, d_k, d_v = sizes(seed, 2, 3, 5, 16, 7)
    shapes = (batch, n_queries, d_k), (batch, n_keys, d_k), (batch, n_keys, d_v)
    query, key, value = (torch.randn(shape, generator=g) for shape in shapes)
    some = torch.rand(n_queries, n_keys, generator=g) < 0.6
    some[:, 0], some[0, -1] = True, False
    return query, key, value, some


def _attended(function: Function, *arguments: Tensor) -> Any:
    """What it answers; a product that PyTorch refuses is named."""
    try:
        return ask(function, *arguments)
    except RuntimeError as error:
        if "batch2" not in str(error):
            raise
        raise Mistake(
            "the shapes of a product don't fit: is the key transposed, query @ key.mT? "
            f"PyTorch says: {error}"
        ) from None


def _average(function: Function, seed: int) -> None:
    query, key, value, some = attention_case(seed)
    n_keys, d_k, d_v = key.size(1), key.size(2), value.size(2)

    def version(divisor: float, axis: int = -1) -> Tensor:
        return (query @ key.mT / divisor).softmax(axis) @ value

    answer = _attended(function, query, key, value, torch.ones_like(some))
    need(not isinstance(answer, tuple), "return the output only, not the weights")
    need(isinstance(answer, Tensor), f"return a tensor, not a {type(answer).__name__}")
    if not answer.isfinite().all() or not answer.any():
        raise Mistake("all may look, yet nobody does: is your mask upside down?")
    root = math.sqrt(d_k)
    compare(
        answer,
        version(root),
        (
            (
                version(1),
                "there is no scale: did you forget to divide by the root of d_k?",
            ),
            (version(d_k), "did you divide by d_k in place of its root?"),
            (version(1 / root), "you multiplied by the root of d_k: divide by it"),
            (
                version(math.sqrt(n_keys)),
                "you divided by the root of the number of keys, not of d_k",
            ),
            (version(math.sqrt(d_v)), "you divided by the root of d_v, not of d_k"),
            (version(root, 0), "is your softmax over the keys, the last axis?"),
            (version(root, 1), "is your softmax over the keys, the last axis?"),
            (
                query @ key.mT / root @ value,
                "where is the softmax? Weights are shares that add up to 1",
            ),
        ),
        f"the output should have shape {tuple(version(1).shape)}, and be that of Eq. 1",
    )


def _mask(function: Function, seed: int) -> None:
    """A row is what the student's own function says of the keys that it may see."""
    query, key, value, some = attention_case(seed)
    everything = torch.ones_like(some)
    shape = (len(query), query.size(1), value.size(2))
    plain = need_tensor(_attended(function, query, key, value, everything), shape)
    if not plain.isfinite().all() or not plain.any():
        raise Mistake("all may look, yet nobody does: is your mask upside down?")
    if same(plain, plain[:, :1].expand_as(plain)):
        raise Mistake("every query gets the same: where is its product with the keys?")
    answer = need_tensor(_attended(function, query, key, value, some), shape)
    rows = []
    for i, seen in enumerate(some):
        visible = torch.ones(1, int(seen.sum())).bool()
        parts = query[:, i : i + 1], key[:, seen], value[:, seen]
        rows.append(_attended(function, *parts, visible))
    if same(answer, torch.cat(rows, 1)):
        return
    if same(answer, plain):
        raise Mistake("the mask changes nothing: is the result of masked_fill used?")
    _average(function, seed)  # first things first: a wrong average is the cause
    scores = query @ key.mT / math.sqrt(key.size(-1))
    compare(
        answer,
        fused_attention(query, key, value, some),
        (
            (
                (scores.softmax(-1) * some) @ value,
                "masked after the softmax: the weights left no longer add up to 1",
            ),
            (
                (scores.masked_fill(~some, 0.0).softmax(-1) * some) @ value,
                "masked after the softmax: the weights left no longer add up to 1",
            ),
            (
                scores.masked_fill(~some, 0.0).softmax(-1) @ value,
                "a masked key still counts: a score of 0 is a share of exp(0) = 1",
            ),
        ),
        "a masked key still counts: is its score -inf, before the softmax?",
    )


def _nowhere(function: Function, seed: int) -> None:
    query, key, value, some = attention_case(seed)
    some[1] = False
    answer = _attended(function, query, key, value, some)
    need_tensor(answer, (len(query), query.size(1), value.size(2)))
    if answer.isnan().any():
        raise Mistake("NaN for a query that may look nowhere: it should get zeros")
    if answer[:, 1].any():
        if not torch.allclose(answer[:, 0], answer[:, 1]):
            _mask(function, seed)  # if no mask works, that is the cause
        raise Mistake("a query that may look nowhere should get zeros")
    if not answer.any():
        raise Mistake("all queries get zeros: only those that may look nowhere should")
