"""Checks of chapter 02, Scaled dot-product attention: one for each exercise."""

from typing import Any

import torch

from annotated_transformer.attention import attention
from annotated_transformer.checks.common import Function
from annotated_transformer.checks.common import close as same


def check_softmax(function: Function) -> str:
    """`my_softmax(scores)`: shares along the last axis, for scores of any size."""
    scores = torch.tensor([[[1.0, 2.0, 3.0], [0.0, 4.0, -4.0]]])

    def differs(x: Any) -> Any:
        return not same(function(x.clone()), x.softmax(-1))

    answer = function(scores.clone())
    if answer is None:
        return "not done yet"
    if answer.shape != scores.shape:
        return f"the shape should stay {tuple(scores.shape)}: one share for each score"
    if any(same(answer, scores.softmax(axis)) for axis in (0, 1)):
        return "the columns add up to 1, not the rows: sum over the last axis, -1"
    if same(answer, scores.exp() / scores.exp().sum()):
        return "all shares together add up to 1: sum each row by itself"
    if differs(scores):
        right = scores.softmax(-1)[0, 0]
        return f"the first row should be {right}, not {answer[0, 0]}"
    if differs(scores + 1000):
        return "exp(1000) is infinite: did you subtract the largest score first?"
    if differs(scores + torch.tensor([[0.0], [1000.0]])):
        return "wrong if rows lie far apart: does each subtract its own largest?"
    if differs(300 * scores):
        return "wrong for scores far apart in a row: is it the largest you subtract?"
    return "correct"


def check_softmax_backward(function: Function) -> str:
    """`my_backward(weights, upstream)`: the gradient of a softmax's scores."""
    g = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 3, 5, generator=g).requires_grad_()
    upstream = torch.randn(2, 3, 5, generator=g)
    weights = scores.softmax(-1)
    weights.backward(upstream)
    p = weights.detach()
    answer, grad = function(p, upstream), scores.grad
    if answer is None:
        return "not done yet"
    if same(answer, p * upstream):
        return "only half: a share that grows takes from all others (the -p_i p_j)"
    if same(answer, p * (1 - p) * upstream):
        return "that is the diagonal alone: a score moves the other shares, too"
    if same(answer, upstream - (p * upstream).sum(-1, keepdim=True)):
        return "is the whole difference multiplied by the share?"
    plain = upstream.mean(-1, keepdim=True)
    if any(same(answer, p * (upstream - n * plain)) for n in (1, 5)):
        return "subtract the mean weighted by the shares, not the plain mean or sum"
    if same(answer, p * (upstream - (p * upstream).sum())):
        return "the sum runs over the last axis only: dim=-1, keepdim=True"
    right = grad is not None and same(answer, grad)
    return "correct" if right else "autograd finds other numbers"


def check_pieces(function: Function) -> str:
    """`my_streaming_attention(query, pieces)`: keys that arrive piece by piece."""
    g = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(shape, generator=g) for shape in ((3, 16), (12, 16), (12, 7))
    )

    def pieces(sign: Any = 1, sizes: Any = (5, 2, 4, 1)) -> Any:
        keys = key if sign > 0 else -key.abs()
        return zip(keys.split(sizes), value.split(sizes), strict=True)

    def overwritten() -> Any:
        room = torch.empty(5, 16), torch.empty(5, 7)
        for piece in pieces():
            yield tuple(r[: len(p)].copy_(p) for r, p in zip(room, piece, strict=True))

    answer = function(query, pieces())
    if answer is None:
        return "not done yet"
    parts = [attention(query, k, v)[0] for k, v in pieces()]
    if same(answer, torch.stack(parts).mean(0)) or same(
        answer, torch.stack(parts).sum(0)
    ):
        return "each piece has its own total: divide once, at the end"
    if same(answer, parts[-1]):
        return "only the last piece counts: carry the sums on from piece to piece"
    if same(answer, attention(query * 4, key, value)[0]):
        return "there is no scale: did you forget to divide by the root of d_k?"
    right = attention(query, key, value)[0]
    if not same(answer, right):
        return "wrong numbers: are both old sums made smaller when m rises?"
    if not same(function(query, overwritten()), right):
        return "you keep whole pieces: add each to the sums before you take the next"
    if not same(function(100 * query, pieces()), attention(100 * query, key, value)[0]):
        return "wrong for large scores: does each query subtract its own largest?"
    low = 300 * query.abs()  # and keys below 0: all scores are
    if not same(function(low, pieces(-1)), attention(low, -key.abs(), value)[0]):
        return "wrong if all scores are far below 0: where does your largest start?"
    return "correct"
