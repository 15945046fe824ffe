"""Checks of chapter 02, Scaled dot-product attention: one for each exercise."""

from collections.abc import Iterator

import torch
from torch import Tensor

from annotated_transformer.attention import attention, fused_attention
from annotated_transformer.checks.common import (
    Answer,
    compare,
    exercise,
    need_gradient,
    need_tensor,
    normal,
)

__all__ = ["check_pieces", "check_softmax", "check_softmax_backward"]


@exercise
def check_softmax(function: Answer) -> None:
    """`my_softmax(scores)`: shares along the last axis, for scores of any size."""
    scores = torch.tensor([[[1.0, 2.0, 3.0], [0.0, 4.0, -4.0]]])
    columns = "the columns add up to 1, not the rows: sum over the last axis, -1"
    all_in_all = scores.exp() / scores.exp().sum()
    answer = need_tensor(function(scores), (1, 2, 3))
    compare(
        answer,
        scores.softmax(-1),
        (
            *((scores.softmax(axis), columns) for axis in (0, 1)),
            (all_in_all, "all weights together add up to 1: sum each row by itself"),
        ),
    )
    apart = torch.tensor([[0.0], [1000.0]])
    for other, hint in (
        (scores + 1000, "exp(1000) is infinite: did you subtract the largest first?"),
        (scores + apart, "rows lie far apart: does each subtract its own largest?"),
        (300 * scores, "far apart in a row: is it the largest that you subtract?"),
        (normal(7, 512), "for 512 scores in a row"),
    ):
        compare(
            function(other),
            other.softmax(-1),
            [(torch.full_like(other, torch.nan), hint)],
            hint,
        )
    need_gradient(function, lambda x: x.softmax(-1), scores)


@exercise
def check_softmax_backward(function: Answer) -> None:
    """`my_backward(weights, upstream)`: the gradient of a softmax's scores."""
    scores, upstream = normal(2, 3, 5).requires_grad_(), normal(2, 3, 5, seed=1)
    weights = scores.softmax(-1)
    (right,) = torch.autograd.grad(weights, scores, upstream)
    p = weights.detach()
    plain = upstream.mean(-1, keepdim=True)
    mean = "subtract the mean weighted by the weights, not the plain mean or sum"
    pulled = p * upstream
    compare(
        need_tensor(function(p, upstream), (2, 3, 5)),
        right,
        (
            (pulled, "only half: a weight that grows takes from all others (-p_i p_j)"),
            (pulled * (1 - p), "the diagonal alone: a score moves the others, too"),
            (
                upstream - pulled.sum(-1, keepdim=True),
                "is the whole difference multiplied by the weight?",
            ),
            *((p * (upstream - n * plain), mean) for n in (1, 5)),
            (
                p * (upstream - pulled.sum()),
                "the sum runs over the last axis only: dim=-1, keepdim=True",
            ),
        ),
        "autograd finds other numbers",
    )
    wide, upstream = normal(1, 40).softmax(-1), normal(1, 40, seed=1)
    right = wide * (upstream - (wide * upstream).sum(-1, keepdim=True))
    compare(function(wide, upstream), right, hint="for 40 scores in a row")


@exercise
def check_pieces(function: Answer) -> None:
    """`my_streaming_attention(query, pieces)`: keys that arrive piece by piece."""
    query, key, value = normal(3, 16), normal(12, 16, seed=1), normal(12, 7, seed=2)
    Pieces = Iterator[tuple[Tensor, ...]]

    def pieces(key: Tensor = key, sizes: tuple[int, ...] = (5, 2, 4, 1)) -> Pieces:
        return iter(list(zip(key.split(sizes), value.split(sizes), strict=True)))

    def overwritten() -> Pieces:
        room = torch.empty(5, 16), torch.empty(5, 7)
        for piece in pieces():
            yield tuple(r[: len(p)].copy_(p) for r, p in zip(room, piece, strict=True))

    parts = torch.stack([fused_attention(query, k, v) for k, v in pieces()])
    own_total = "each piece has its own total: divide once, at the end"
    compare(
        need_tensor(function(query, pieces()), (3, 7)),
        fused_attention(query, key, value),
        (
            (parts.mean(0), own_total),
            (parts.sum(0), own_total),
            (parts[-1], "only the last piece counts: carry the sums on"),
            (
                attention(4 * query, key, value)[0],
                "there is no scale: did you forget to divide by the root of d_k?",
            ),
        ),
        "are both old sums made smaller when m rises?",
    )
    low, negative = 300 * query.abs(), -key.abs()  # all scores are far below 0
    for case, keys, hint, stream in (
        (
            query,
            key,
            "you keep whole pieces: add each to the sums before you take the next",
            overwritten(),
        ),
        (
            100 * query,
            key,
            "large scores: does each query subtract its own largest?",
            pieces(),
        ),
        (
            low,
            negative,
            "all scores far below 0: where does your largest start?",
            pieces(negative),
        ),
        (query, key, "all keys in one piece", pieces(sizes=(12,))),
    ):
        compare(function(case, stream), fused_attention(case, keys, value), hint=hint)
