"""The table of positions, problem 1.4."""

import torch
from torch import Tensor

from annotated_transformer.checks.common import (
    Function,
    Mistake,
    ask,
    compare,
    need,
    need_tensor,
    same,
    sizes,
    verdict,
)
from annotated_transformer.layers import sinusoids

__all__ = ["check_sinusoids"]


def check_sinusoids(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`sinusoids(length, d_model)`: the table of positions (§3.5).

    Parts: "table", and "far" (other widths, and positions far out).
    """
    return verdict(function, part, seed, table=_table, far=_far)


def _table(function: Function, seed: int) -> None:
    length, width = sizes(seed, 7, 3)
    width *= 2
    answer = ask(function, length, width)
    need(
        isinstance(answer, Tensor),
        f"the answer should be a tensor, not a {type(answer).__name__}",
    )
    right = sinusoids(length, width)
    need(
        answer.shape != (width, length) or width == length,
        "positions go down, columns across: did you transpose?",
    )
    need_tensor(answer, (length, width))
    pos = torch.arange(length).double()[:, None]
    column = torch.arange(0, width, 2).double()

    def table(angle: Tensor) -> Tensor:
        return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)

    angle, every = pos / 10_000 ** (column / width), torch.arange(width) / width
    every = pos / 10_000**every
    own_pace = torch.stack([every[:, ::2].sin(), every[:, 1::2].cos()], -1)
    compare(
        answer,
        right,
        (
            (
                right.view(length, -1, 2).flip(-1).flatten(1),
                "sines in even columns, cosines in odd",
            ),
            (
                torch.cat([angle.sin(), angle.cos()], 1),
                "these are halves: sine and cosine should alternate",
            ),
            (sinusoids(length + 1, width)[1:], "the first position is 0, not 1"),
            (
                table(pos / 10_000 ** (column / 2 / width)),
                "the exponent is 2i / d_model, not i",
            ),
            (
                table(pos / 10_000 ** (2 * column / width)),
                "2i twice? the columns are 0, 2, 4 already",
            ),
            (
                table(pos * 10_000 ** (column / width)),
                "the paces shrink: divide, don't multiply",
            ),
            (table(pos / 1_000 ** (column / width)), "the base is 10,000"),
            (
                table(pos / 10_000 ** (column / max(width - 2, 1))),
                "divide by d_model, not d_model - 2 (the authors' code does that)",
            ),
            (
                table(pos.expand(length, width // 2)),
                "all paces are 1: is there a // in the exponent?",
            ),
            (table(angle.deg2rad()), "angles are radians, not degrees"),
            (
                own_pace.flatten(1),
                "sine and cosine of a pair share a pace: 2i for both",
            ),
        ),
        f"row 1 should be {right[1]}, not {answer[1]}",
        tolerance=1e-3,
    )
    if not same(answer, right, 1e-5):
        raise Mistake(f"row 1 should be {right[1]}, not {answer[1]}")


def _far(function: Function, seed: int) -> None:
    width, far = 10 + 2 * (seed % 7), 100_001 + seed % 1000
    answer = need_tensor(ask(function, 5, width), (5, width))
    if not same(answer, sinusoids(5, width), 1e-5):
        raise Mistake(f"right for 6 columns, wrong for {width}")
    answer = need_tensor(ask(function, far, 6), (far, 6))
    if not same(answer[-1], sinusoids(far, 6)[-1], 1e-5):
        raise Mistake("inexact at position 100,000: are the angles float64?")
