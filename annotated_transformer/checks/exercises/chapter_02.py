"""Checks of chapter 02, Scaled dot-product attention, and of what goes deeper."""

import math
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from annotated_transformer.attention import attention, fused_attention
from annotated_transformer.checks.common import (
    Answer,
    Fresh,
    Mistakes,
    compare,
    errors_mean,
    exercise,
    need,
    need_gradient,
    need_tensor,
    normal,
)
from annotated_transformer.checks.problems.attention import (
    attention_case,
    wrong_averages,
)

__all__ = [
    "check_by_pencil",
    "check_eq_1",
    "check_pieces",
    "check_softmax",
    "check_softmax_backward",
]


@exercise
def check_eq_1(function: Answer) -> None:
    """`my_eq_1(query, key, value)`: the output of Eq. 1, with any axes in front."""
    query, key, value, _ = attention_case(0)
    two = query[:1], key[:1], value[:1]  # a batch of one, for the wrong answers
    with errors_mean("is the key transposed? {error}", RuntimeError):
        answer = function(*(part[0] for part in two))
    compare(
        need_tensor(answer, (3, 7))[None],
        fused_attention(*two),
        [*wrong_averages(*two), (fused_attention(2 * two[0], *two[1:]), NO_4)],
        "Eq. 1, for matrices",
    )
    with errors_mean(AXES, RuntimeError, IndexError):
        answer = function(query, key, value)
    right = fused_attention(query, key, value)
    mistakes = wrong_averages(query, key, value)
    compare(need_tensor(answer, (2, 3, 7)), right, mistakes, "with a batch in front")
    need_gradient(function, fused_attention, query, key, value)


NO_4 = "d_k is 4 only for the fruit: take it from the query, query.size(-1)"
AXES = "right for matrices; with more axes in front swap the last two, key.mT: {error}"
# The weights for scaled scores of ln 6, ln 3 and 0, and what is often written instead.
Weights = list[float]
DRILL: dict[str, tuple[Weights, list[tuple[Weights, str]]]] = {
    "plain": (
        [6 / 10, 3 / 10, 1 / 10],
        [([6, 3, 1], "those are the powers: divide each by their total")],
    ),
    "raised": ([6 / 10, 3 / 10, 1 / 10], []),
    "masked": (
        [6 / 7, 0.0, 1 / 7],
        [
            ([6 / 10, 0.0, 1 / 10], "what is left must add up to 1 again"),
            ([6 / 8, 1 / 8, 1 / 8], "a masked score is -inf, not 0: its power is 0"),
        ],
    ),
    "doubled": (
        [36 / 46, 9 / 46, 1 / 46],
        [([6 / 10, 3 / 10, 1 / 10], "twice the score is the square of its power")],
    ),
}


@exercise
def check_by_pencil(function: Answer) -> None:
    """`my_weights()`: a dict with three weights for each of four cases."""
    found = function()
    need(isinstance(found, dict), "return a dictionary, as the stub says")
    for name, (right, wrong) in DRILL.items():
        need(name in found, f"the dictionary has no {name!r}")
        given = torch.as_tensor(found[name], dtype=torch.float64)
        mistakes = [(torch.tensor(w, dtype=torch.float64), hint) for w, hint in wrong]
        need(given.shape == (3,), f"{name!r} needs three numbers")
        compare(
            given,
            torch.tensor(right, dtype=torch.float64),
            [(w, f"{name}: {hint}") for w, hint in mistakes],
            f"in {name!r}",
        )


@exercise
def check_softmax(function: Answer) -> None:
    """`my_softmax(scores)`: weights along the last axis, for scores of any size."""
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
            (-right, "the sign is reversed: upstream minus the mean, not the opposite"),
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


SPLITS = ((5, 2, 4, 1), (12,), (1,) * 12)
Stream = Iterator[tuple[Tensor, Tensor]]


def stream(key: Tensor, value: Tensor, sizes: Sequence[int]) -> Stream:
    """Keys and values piece by piece, each written over the one before."""
    room = torch.empty(12, key.size(1)), torch.empty(12, value.size(1))
    for piece in zip(key.split(sizes), value.split(sizes), strict=True):
        k, v = (r[: len(p)].copy_(p) for r, p in zip(room, piece, strict=True))
        yield k, v


@exercise
def check_pieces(function: Answer) -> None:
    """`my_streaming_attention(query, pieces)`: keys that arrive piece by piece."""
    for queries, d_k, sizes in (
        (3, 16, SPLITS[0]),
        (1, 5, SPLITS[1]),
        (4, 9, SPLITS[2]),
    ):
        query, key = normal(queries, d_k), normal(12, d_k, seed=1)
        value, case = normal(12, 7, seed=2), f"d_k = {d_k}, pieces of {sizes}"
        pieces = list(zip(key.split(sizes), value.split(sizes), strict=True))
        answer = function(query, Fresh(partial(iter, pieces)))
        right = fused_attention(query, key, value)
        mistakes = _pieces_mistakes(query, key, value, pieces)
        compare(need_tensor(answer, (queries, 7)), right, mistakes, case)
    query, key, value = normal(3, 16), normal(12, 16, seed=1), normal(12, 7, seed=2)
    whole = "you keep whole pieces: add each to the sums before you take the next"
    loud = "large scores: does each query subtract its own largest?"
    low = "all scores far below 0: where does your largest start?"
    for q, k, hint in (
        (query, key, whole),
        (100 * query, key, loud),
        (300 * query.abs(), -key.abs(), low),
    ):
        streamed = Fresh(partial(stream, k, value, SPLITS[0]))
        compare(function(q, streamed), fused_attention(q, k, value), hint=hint)

    def in_pieces(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        parts = zip(key.split(SPLITS[0]), value.split(SPLITS[0]), strict=True)
        return function.let(query, iter(list(parts)))

    need_gradient(Answer(in_pieces), fused_attention, query, key, value)


def _pieces_mistakes(
    query: Tensor, key: Tensor, value: Tensor, pieces: Sequence[tuple[Tensor, ...]]
) -> Mistakes:
    parts = torch.stack([fused_attention(query, k, v) for k, v in pieces])
    own_total = "each piece has its own total: divide once, at the end"
    raised = "are both old sums made smaller when m rises?"
    root = math.sqrt(query.size(-1))
    no_scale = "there is no scale: did you forget to divide by the root of d_k?"
    yield attention(root * query, key, value)[0], no_scale
    yield attention(query / root, key, value)[0], "divided by d_k instead of its root?"
    if len(pieces) > 1:
        yield parts.mean(0), own_total
        yield parts.sum(0), own_total
        yield parts[-1], "only the last piece counts: carry the sums on"
        yield parts[0], "only the first piece counts: is the return inside the loop?"
    yield _never_shrunk(query, pieces), raised


def _never_shrunk(query: Tensor, pieces: Sequence[tuple[Tensor, ...]]) -> Tensor:
    """What comes out if old sums stay as they are when a larger score comes."""
    top = torch.full((len(query), 1), -math.inf)
    total, mixed = torch.zeros_like(top), torch.zeros(len(query), pieces[0][1].size(1))
    for key, value in pieces:
        scores = query @ key.mT / math.sqrt(query.size(-1))
        top = torch.maximum(top, scores.amax(-1, keepdim=True))
        weights = (scores - top).exp()
        total, mixed = total + weights.sum(-1, keepdim=True), mixed + weights @ value
    return mixed / total
