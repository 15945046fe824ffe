"""Checks of chapter 06, Positional encoding: one for each exercise."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from annotated_transformer.checks.common import (
    NOT_DONE,
    Answer,
    Mistake,
    compare,
    errors_mean,
    exercise,
    need,
    need_number,
    need_tensor,
    normal,
    same,
    seeded,
)
from annotated_transformer.layers import sinusoids
from annotated_transformer.lessons import frequencies

__all__ = ["check_halves", "check_hand", "check_move", "check_places"]


def rotate(x: Tensor, start: int = 0) -> Tensor:
    """Turn each pair of neighbors by its position."""
    length, d_k = x.shape[-2:]
    angle = torch.arange(start, start + length)[:, None] * frequencies(d_k)
    turns = torch.polar(torch.ones_like(angle), -angle).to(torch.complex64)
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))  # (..., length, d_k / 2)
    return torch.view_as_real(pairs * turns).flatten(-2)


@exercise
def check_move(function: Answer) -> None:
    """`my_move(rows, k)`: encodings moved on by k positions."""
    table = sinusoids(700, 6)
    rows = table[[5, 17, 40]]
    compare(
        need_tensor(function(rows, 3), (3, 6)),
        table[[8, 20, 43]],
        _move_mistakes(table, rows),
        "compare with the two rows of the 2 x 2 rotation",
    )
    back = "k = -4 moves back"
    compare(function(rows, -4), table[[1, 13, 36]], hint=back)
    compare(function(rows, 0), rows, hint="k = 0 moves nothing")
    compare(function(rows, 600), table[[605, 617, 640]], hint="a move by 600")
    for width in (2, 10, 512):
        right, case = sinusoids(9, width)[5:], f"for {width} columns"
        compare(function(sinusoids(9, width)[:4], 5), right, hint=case)
    half = function(function(rows, 0.5).to(rows), 0.5)
    compare(half, table[[6, 18, 41]], hint="two moves by 0.5 should be a move by 1")
    any_rows = "rows are any encodings: those of position 2.5, ten times as large"
    between = 10 * function(table[[2]], 0.5).to(rows)
    compare(function(between, 0.5), 10 * table[[3]], hint=any_rows)


def _move_mistakes(table: Tensor, rows: Tensor) -> list[tuple[Tensor, str]]:
    """What k = 3 gives from positions 5, 17 and 40, by one mistake each."""
    sines, cosines = rows[:, ::2], rows[:, 1::2]

    def pairs(a: Tensor, b: Tensor) -> Tensor:
        return torch.stack([a, b], -1).flatten(1)

    def moved(angle: Tensor) -> tuple[Tensor, Tensor]:
        s, c = angle.sin(), angle.cos()
        return sines * c + cosines * s, cosines * c - sines * s

    angle = 3 * frequencies(6)
    new = moved(angle)
    reused = cosines * angle.cos() - new[0] * angle.sin()
    one_frequency = "all clocks turned by the same angle: each has its own frequency"
    sums = pairs(sines + angle.sin(), cosines + angle.cos())
    return [
        (table[[2, 14, 37]], "that moves back: the sign of the off-diagonal pair"),
        (rows, "nothing has moved"),
        (table[[6, 18, 41]], "that is a move by 1: does k come in?"),
        (pairs(*new[::-1]), "sine and cosine changed places"),
        (pairs(new[0], reused), "use the OLD sines for the cosines"),
        (torch.cat(new, -1), "halves: pairs should alternate"),
        (sums, "angles add up, sines don't"),
        (pairs(*moved(torch.tensor(3.0))), one_frequency),
    ]


def _positions(ids: Tensor) -> Tensor:
    real = ids != 0
    return (real.cumsum(-1) - 1) * real


@exercise
def check_hand(answer: Answer) -> None:
    """`my_hand`: sine and cosine of position 5, found from positions 2 and 3."""
    given: Any = answer.function
    hand = list(given) if isinstance(given, list | tuple) else []
    need(len(hand) == 2, "two numbers are needed: [sine, cosine]")
    need(not any(x is None or x is ... for x in hand), NOT_DONE)
    (s2, c2), (s3, c3) = sinusoids(4, 2)[2:].tolist()
    s5, c5 = sinusoids(6, 2)[5].tolist()
    s1, c1 = sinusoids(2, 2)[1].tolist()
    mistakes = [
        ([c5, s5], "sine and cosine changed places"),
        ([s2 + s3, c2 + c3], "angles add up, sines and cosines don't"),
        ([s2 * s3, c2 * c3], "each new number needs all four old ones"),
        ([s1, c1], "that is position 3 - 2 = 1: turn on, not back"),
        ([-s1, c1], "that is position 2 - 3 = -1: turn on, not back"),
    ]
    compare([need_number(x) for x in hand], [s5, c5], mistakes, tolerance=0.01)


@exercise
def check_places(function: Answer) -> None:
    """`my_places(ids)`: the position of each real token, padding on either side."""
    ids = torch.tensor([[0, 0, 7, 3, 9], [4, 4, 2, 8, 5], [0, 6, 5, 0, 0]])
    answer = function(ids)
    one_row = isinstance(answer, Tensor) and answer.shape == (5,)
    need(not one_row, "one position for each token: the shape should be (3, 5)")
    kind = need_tensor(answer, (3, 5)).dtype
    whole = "positions pick rows of a table: they should be whole numbers"
    need(not kind.is_floating_point and kind != torch.bool, whole)
    compare(answer, _positions(ids), _position_mistakes(ids), "count in this row alone")
    long = torch.randint(1, 99, (4, 300), generator=seeded(0))
    long[0, :200], long[1, 120:], long[2, :50], long[2, 290:] = 0, 0, 0, 0
    for more, case in (
        (long, "rows of 300"),
        (torch.tensor([[0, 0, 0], [0, 5, 0]]), "a row of padding alone"),
        (torch.tensor([[8]]), "one token"),
        (torch.tensor([[0, 0, 4, 2]]), "one row"),
    ):
        compare(function(more), _positions(more), hint=case)


def _position_mistakes(ids: Tensor) -> list[tuple[Tensor, str]]:
    real = ids != 0
    count, column = real.cumsum(-1), torch.arange(ids.size(1)).expand_as(ids)
    first = "the first real token has position 0, not 1"
    shifted = (column - (~real).sum(-1, keepdim=True)).clamp(min=0) * real
    on_left = "padding on the right moves nothing: subtract only what is on the left"
    down = (real.cumsum(0) - 1).clamp(min=0) * real
    return [
        (column, "padding is still counted"),
        (column * real, "padding is still counted, on the left"),
        (count * real, first),
        (count, first),
        (count - 1, "padding gets -1 (or more): set it to 0"),
        ((count - 1).clamp(min=0), "padding on the right should get 0, too"),
        (down, "count along the row: cumsum(-1)"),
        ((ids.cumsum(-1) - 1) * real, "count the tokens, don't add up their ids"),
        (shifted, on_left),
    ]


def _rotate_halves(x: Tensor) -> Tensor:
    """Turn each feature of the first half with its partner in the second."""
    turned = rotate(torch.stack(x.chunk(2, -1), -1).flatten(-2))
    return torch.cat([turned[..., 0::2], turned[..., 1::2]], -1)


def _scores(turn: Callable[[Tensor], Tensor], n_heads: int, *pair: Tensor) -> Tensor:
    """Of these query and key weights, for 9 positions: (heads, query, key)."""
    x = normal(9, pair[0].size(1), seed=2)
    q, k = (turn(F.linear(x, w).view(9, n_heads, -1).transpose(0, 1)) for w in pair)
    return q @ k.mT


@exercise
def check_halves(function: Answer) -> None:
    """`my_halves(weight, n_heads)`: rotary weights from pairs to halves."""
    for n_heads, d_k in ((2, 6), (3, 4), (1, 6), (2, 2), (8, 64)):
        wq, wk = (normal(n_heads * d_k, 10, seed=seed) for seed in (0, 1))
        case = f"{n_heads} heads of width {d_k}"
        with errors_mean(f"{case}: {{error}}"):
            answer, key = function(wq, n_heads), function(wk, n_heads)
        need_tensor(answer, (n_heads * d_k, 10))
        found = _scores(_rotate_halves, n_heads, answer, key)
        if not same(found, _scores(rotate, n_heads, wq, wk), 1e-3):
            _name_halves(answer, wq, n_heads, case)


def _name_halves(answer: Tensor, weight: Tensor, n_heads: int, case: str) -> None:
    """Raise a Mistake: the scores are not those of the model that turns neighbors."""
    heads = weight.unflatten(0, (n_heads, -1))
    even, odd = heads[:, 0::2], heads[:, 1::2]
    back = torch.stack(heads.chunk(2, 1), 2).flatten(1, 2)
    columns = torch.cat([weight[:, 0::2], weight[:, 1::2]], 1)
    whole = torch.cat([weight[0::2], weight[1::2]])
    mistakes = (
        (weight, "nothing has changed"),
        (whole, "the heads are mixed up: reorder within each head"),
        (back.flatten(0, 1), "that is the way back, from halves to pairs"),
        (torch.cat([odd, even], 1).flatten(0, 1), "even features first, then odd ones"),
        (columns, "reorder the rows, not the columns"),
        (heads.flip(0).flatten(0, 1), "the heads changed places, the features didn't"),
        (heads.mT.reshape(weight.shape), "the features of a query are its rows"),
        (heads.transpose(0, 1).flatten(0, 1), "that lays the heads side by side"),
    )
    for wrong, message in mistakes:
        need(not same(answer, wrong), message)
    kept = same(answer.sort(0)[0], weight.sort(0)[0])
    need(kept, f"{case}: no number may change, only the order of the rows")
    order = "are the pairs still in the order of their frequencies?"
    raise Mistake(f"{case}: the scores changed: {order}")
