"""Attention, problem 1.2."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from annotated_transformer.attention import fused_attention
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
    same,
    seeded,
    sizes,
    verdict,
)

__all__ = ["check_attention"]

UPSIDE_DOWN = "all may look, yet nobody does: is your mask upside down?"
LEAK = "a masked key still counts: is its score -inf, before the softmax?"
TOO_LATE = "masked after the softmax: the weights left no longer add up to 1"


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


def attended(function: Answer, *arguments: Tensor) -> Tensor:
    """What it answers, of the right shape; a product that PyTorch refuses is named."""
    query, _, value, _ = arguments
    try:
        answer = function(*arguments)
    except RuntimeError as error:
        need(
            "batch2" not in str(error),
            f"is the key transposed, query @ key.mT? {error}",
        )
        raise
    if isinstance(answer, Tensor) and not answer.isfinite().all() and answer.any():
        need(not answer.isinf().any(), UPSIDE_DOWN)
    return need_tensor(answer, (*query.shape[:-1], value.size(-1)))


def wrong_averages(query: Tensor, key: Tensor, value: Tensor) -> Mistakes:
    """Outputs that are known to be wrong where all may look, each with its cause."""
    scores, root = query @ key.mT, math.sqrt(key.size(2))
    scaled = scores / root
    n_keys, d_v = math.sqrt(key.size(1)), math.sqrt(value.size(2))

    def divided(divisor: float, axis: int = -1) -> Tensor:
        return (scores / divisor).softmax(axis) @ value

    over_keys = "is your softmax over the keys, the last axis?"
    sigmoid = "that is a sigmoid: the weights of a query add up to 1, so softmax"
    total = "exp alone is half of a softmax: divide by the sum over the keys"
    where = "where is the softmax? Weights add up to 1"
    yield divided(1), "no scale: did you forget to divide by the root of d_k?"
    yield divided(root**2), "did you divide by d_k instead of its root?"
    yield divided(1 / root), "you multiplied by the root of d_k: divide by it"
    yield divided(n_keys), "divided by the root of the number of keys, not of d_k"
    yield divided(d_v), "you divided by the root of d_v, not of d_k"
    yield divided(root, 0), over_keys
    yield divided(root, 1), over_keys
    yield scaled.flatten(1).softmax(-1).view_as(scores) @ value, over_keys
    yield scaled.flatten().softmax(-1).view_as(scores) @ value, over_keys
    yield scaled @ value, where
    yield scores @ value, where
    yield scaled.relu() @ value, where
    yield scaled / scaled.sum(-1, keepdim=True) @ value, where
    yield scaled.sigmoid() @ value, sigmoid
    yield scores.sigmoid() @ value, sigmoid
    yield scaled.exp() @ value, total
    yield scaled.log_softmax(-1) @ value, "log_softmax gives logarithms: take softmax"
    yield divided(-root), "the sign: the largest score has the largest weight"
    yield scores.softmax(-1) / root @ value, "scale the scores, before the softmax"
    yield scaled.softmax(-1).softmax(-1) @ value, "is the softmax taken twice?"
    normed = F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).mT
    yield normed.softmax(-1) @ value, "those are cosines: a dot product over its root"


def _average(function: Answer, seed: int) -> None:
    query, key, value, some = attention_case(seed)
    everything = torch.ones_like(some)
    answer = attended(function, query, key, value, everything)
    need(answer.isfinite().all() and answer.any(), UPSIDE_DOWN)

    right, hint = fused_attention(query, key, value), "Eq. 1, where all may look"
    compare(answer, right, wrong_averages(query, key, value), hint)
    wide = [torch.randn(2, n, 64, generator=seeded(seed)) for n in (3, 40, 40)]
    seen = torch.ones(3, 40).bool()
    right = fused_attention(*wide)
    compare(attended(function, *wide, seen), right, hint="with 40 keys and d_k = 64")
    need_gradient(function, fused_attention, query, key, value, everything)


def _mask(function: Answer, seed: int) -> None:
    query, key, value, some = attention_case(seed)
    _masked(function, seed, query, key, value, some)
    n = key.size(1)
    square = torch.ones(n, n).tril().bool()  # its axes could be swapped
    query = torch.randn(len(query), n, key.size(2), generator=seeded(seed + 1))
    _masked(function, seed, query, key, value, square)


def _masked(
    function: Answer, seed: int, query: Tensor, key: Tensor, value: Tensor, some: Tensor
) -> None:
    """A row is what the student's own function says of the keys that it may see."""
    plain = attended(function, query, key, value, torch.ones_like(some))
    need(plain.isfinite().all() and plain.any(), UPSIDE_DOWN)
    alike = same(plain, plain[:, :1].expand_as(plain))
    need(not alike, "every query gets the same: where is its product with the keys?")
    answer = attended(function, query, key, value, some)
    rows = []
    for i, seen in enumerate(some):
        visible = torch.ones(1, int(seen.sum())).bool()
        parts = query[:, i : i + 1], key[:, seen], value[:, seen]
        rows.append(attended(function, *parts, visible))
    if not same(answer, torch.cat(rows, 1)):
        unused = "the mask changes nothing: is the result of masked_fill used?"
        need(not same(answer, plain), unused)
        _average(function, seed)  # first things first: a wrong average is the cause
        scores = query @ key.mT / math.sqrt(key.size(-1))
        zeros = scores.masked_fill(~some, 0.0).softmax(-1)
        one = "a masked key still counts: a score of 0 is a weight of exp(0) = 1"
        mistakes: tuple[tuple[Tensor, str], ...] = (
            ((scores.softmax(-1) * some) @ value, TOO_LATE),
            ((zeros * some) @ value, TOO_LATE),
            (zeros @ value, one),
        )
        right = fused_attention(query, key, value, some)
        if len(some) == key.size(1):
            turned = fused_attention(query, key, value, some.mT)
            mistakes += ((turned, "the mask is transposed: its rows are the queries"),)
        compare(answer, right, mistakes, LEAK)
    _no_leak(function, query, key, value, some)


def _no_leak(function: Answer, *case: Any) -> None:
    """What is hidden changes by much, where scores are large, and must not be felt."""
    query, key, value, some = case
    hidden = ~some.any(0)
    seen_by_first = some & ~some[0]  # keys that others see, and query 0 does not
    hidden = hidden | seen_by_first.any(0)
    key, value = key.clone(), value.clone()
    for scale in (10.0, 0.1):
        first = attended(function, scale * query, key, value, some)[:, 0]
        louder, other = key.clone(), value.clone()
        other[:, hidden] = 1e4
        if scale < 1:  # keys that are too loud would drown the others in rounding
            louder[:, hidden] = -2 * louder[:, hidden]
        again = attended(function, scale * query, louder, other, some)[:, 0]
        unfelt = same(first, again, 1e-5)  # rounding, where one divides afterwards
        need(unfelt, f"what the mask hides changes the output: {LEAK}")


def _nowhere(function: Answer, seed: int) -> None:
    query, key, value, some = attention_case(seed)
    some[1] = False
    answer = attended(function, query, key, value, some)
    zeros = "a query that may look nowhere should get zeros"
    need(
        not answer.isnan().any(),
        "NaN for a query that may look nowhere: it should get zeros",
    )
    if answer[:, 1].any():
        if not torch.allclose(answer[:, 0], answer[:, 1]):
            _mask(function, seed)  # if no mask works, that is the cause
        raise Mistake(zeros)
    need(answer.any(), "all queries get zeros: only those that may look nowhere should")
    with errors_mean("the mask fails where nobody may look: {error}", RuntimeError):
        nobody = attended(function, query, key, value, torch.zeros_like(some))
    need(not nobody.any() and nobody.isfinite().all(), f"nobody may look: {zeros}")
