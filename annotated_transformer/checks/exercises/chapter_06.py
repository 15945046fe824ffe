"""Checks of chapter 06, Positional encoding: one for each exercise."""

from typing import Any

import torch
import torch.nn.functional as F

from annotated_transformer.checks.common import Answer, exercise, seeded
from annotated_transformer.checks.common import close as same
from annotated_transformer.layers import sinusoids

__all__ = ["check_halves", "check_move", "check_places"]


def paces(d_model: Any) -> Any:
    """How far each pair of columns turns from place to place."""
    return 10_000.0 ** (-torch.arange(0, d_model, 2, dtype=torch.float64) / d_model)


def rotate(x: Any, start: Any = 0) -> Any:
    """Turn each pair of neighbors by its place."""
    length, d_k = x.shape[-2:]
    angle = torch.arange(start, start + length)[:, None] * paces(d_k)
    turns = torch.polar(torch.ones_like(angle), -angle).to(torch.complex64)
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))  # (..., length, d_k / 2)
    return torch.view_as_real(pairs * turns).flatten(-2)


@exercise
def check_move(function: Answer) -> str:
    """`my_move(rows, k)`: encodings moved on by k places."""
    table = sinusoids(60, 6)
    rows = table[[5, 17, 40]]
    answer = function(rows.clone(), 3)
    if not isinstance(answer, torch.Tensor):
        return f"the answer should be a tensor, not a {type(answer).__name__}"
    if answer.shape != rows.shape:
        return f"the shape should be {tuple(rows.shape)}, not {tuple(answer.shape)}"
    sines, cosines = rows[:, ::2], rows[:, 1::2]
    s, c = (3 * paces(6)).sin(), (3 * paces(6)).cos()

    def pairs(a: Any, b: Any) -> Any:
        return torch.stack([a, b], -1).flatten(1)

    one, back = table[[6, 18, 41]], table[[2, 14, 37]]
    new_sines = sines * c + cosines * s
    for wrong, mistake in (
        (back, "that moves back: the sign of the off-diagonal pair"),
        (rows, "nothing has moved"),
        (one, "that is a move by 1: does k come in?"),
        (pairs(cosines * c - sines * s, new_sines), "sine and cosine changed places"),
        (
            pairs(new_sines, cosines * c + new_sines * -s),
            "use the OLD sines for the cosines",
        ),
        (
            torch.cat([new_sines, cosines * c - sines * s], -1),
            "halves: pairs should alternate",
        ),
        (pairs(sines + s, cosines + c), "angles add up, sines don't"),
    ):
        if same(answer, wrong):
            return mistake
    s, c = torch.tensor(3.0).sin(), torch.tensor(3.0).cos()
    if same(answer, pairs(sines * c + cosines * s, cosines * c - sines * s)):
        return "all clocks turned by the same angle: each has its own pace"
    if not same(answer, table[[8, 20, 43]]):
        return "wrong numbers: compare with the two rows of the 2 x 2 rotation"
    if not same(function(rows.clone(), -4), table[[1, 13, 36]]):
        return "right for k = 3, wrong for k = -4"
    if not same(function(sinusoids(9, 10)[:4], 5), sinusoids(9, 10)[5:]):
        return "right for 6 columns, wrong for 10"
    half = function(function(rows.clone(), 0.5).to(rows), 0.5)
    return "correct" if same(half, one) else "two moves by 0.5 should be a move by 1"


@exercise
def check_places(function: Answer) -> str:
    """`my_places(ids)`: the place of each real token, padding on either side."""
    ids = torch.tensor([[0, 0, 7, 3, 9], [4, 4, 2, 8, 5], [0, 6, 5, 0, 0]])
    right = torch.tensor([[0, 0, 0, 1, 2], [0, 1, 2, 3, 4], [0, 0, 1, 0, 0]])
    answer = function(ids.clone())
    if not isinstance(answer, torch.Tensor):
        return f"the answer should be a tensor, not a {type(answer).__name__}"
    real = ids != 0
    if answer.shape == (5,):
        return "one place for each token: the shape should be (3, 5)"
    if answer.shape != (3, 5):
        return f"the shape should be (3, 5), not {tuple(answer.shape)}"
    if answer.dtype.is_floating_point or answer.dtype == torch.bool:
        return "places pick rows of a table: they should be whole numbers"
    for wrong, mistake in (
        (torch.arange(5).expand(3, 5), "padding is still counted"),
        (torch.arange(5) * real, "padding is still counted, on the left"),
        (real.cumsum(-1) * real, "the first real token has place 0, not 1"),
        (real.cumsum(-1), "the first real token has place 0, not 1"),
        (real.cumsum(-1) - 1, "padding gets -1 (or more): set it to 0"),
        ((real.cumsum(-1) - 1).clamp(min=0), "padding on the right should get 0, too"),
        ((real.cumsum(0) - 1).clamp(min=0) * real, "count along the row: cumsum(-1)"),
        ((ids.cumsum(-1) - 1) * real, "count the tokens, don't add up their ids"),
        (
            (torch.arange(5) - (~real).sum(-1, keepdim=True)).clamp(min=0) * real,
            "padding on the right moves no place: subtract only what is on the left",
        ),
    ):
        if torch.equal(answer, wrong):
            return mistake
    for row, (found, wanted) in enumerate(zip(answer, right, strict=True)):
        if not torch.equal(found, wanted.to(found)):
            return f"row {row} should be {wanted.tolist()}, not {found.tolist()}"
    return "correct"


def rotate_halves(x: Any) -> Any:
    """Turn each feature of the first half with its partner in the second."""
    half = x.size(-1) // 2
    pairs = torch.stack([x[..., :half], x[..., half:]], -1).flatten(-2)
    turned = rotate(pairs)
    return torch.cat([turned[..., 0::2], turned[..., 1::2]], -1)


@exercise
def check_halves(function: Answer) -> str:
    """`my_halves(weight, n_heads)`: rotary weights from pairs to halves."""
    n_heads, d_k, d_model = 2, 6, 10
    g = seeded(0)
    wq, wk = torch.randn(2, n_heads * d_k, d_model, generator=g)
    x = torch.randn(5, d_model, generator=g)

    def scores(turn: Any, wq: Any, wk: Any) -> Any:
        q, k = (
            turn(F.linear(x, w).view(5, n_heads, d_k).transpose(0, 1)) for w in (wq, wk)
        )
        return q @ k.mT  # (heads, query, key)

    answer = function(wq.clone(), n_heads)
    if answer.shape != wq.shape:
        return f"the shape should be {tuple(wq.shape)}, not {tuple(answer.shape)}"
    if torch.equal(answer, wq):
        return "nothing has changed"
    per_head = wq.view(n_heads, d_k, d_model)
    inverse = [0, 3, 1, 4, 2, 5]
    whole = torch.cat([wq[0::2], wq[1::2]])
    for wrong, mistake in (
        (whole, "the heads are mixed up: reorder within each head"),
        (
            per_head[:, inverse].flatten(0, 1),
            "that is the way back, from halves to pairs",
        ),
        (
            per_head[:, [1, 3, 5, 0, 2, 4]].flatten(0, 1),
            "even features first, then odd ones",
        ),
        (
            wq[:, [*range(0, 10, 2), *range(1, 10, 2)]],
            "reorder the rows, not the columns",
        ),
        (
            per_head.flip(0).flatten(0, 1),
            "the heads changed places, the features didn't",
        ),
        (per_head.transpose(0, 1).flatten(0, 1), "that lays the heads side by side"),
    ):
        if same(answer, wrong):
            return mistake
    if not same(answer.sort(0)[0], wq.sort(0)[0]):
        return "no number may change: only the order of the rows"
    new = scores(rotate_halves, answer, function(wk.clone(), n_heads))
    if not same(new, scores(rotate, wq, wk), 1e-3):
        return "the scores changed: are the pairs still in the order of their paces?"
    three = torch.cat([function(part.clone(), 1) for part in wq.split(4)])
    if not same(function(wq.clone(), 3), three):
        return "right for 2 heads, wrong for 3"
    return "correct"
