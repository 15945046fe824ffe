"""The table of positions, problem 1.4."""

import math

import torch
from torch import Tensor

from annotated_transformer.checks.common import (
    Answer,
    Function,
    Mistakes,
    compare,
    need,
    need_tensor,
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


def wrong_tables(length: int, width: int) -> Mistakes:
    """Tables that are known to be wrong, each with its cause."""
    right = sinusoids(length, width)
    pos = torch.arange(length).double()[:, None]
    column = torch.arange(0, width, 2).double()

    def table(angle: Tensor) -> Tensor:
        return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)

    def turned(exponent: Tensor, base: float = 10_000) -> Tensor:
        return table(pos / base**exponent)

    flipped = right.view(length, -1, 2).flip(-1).flatten(1)
    angle, every = pos / 10_000 ** (column / width), torch.arange(width) / width
    every = pos / 10_000**every
    own_frequency = torch.stack(
        [every[:, ::2].sin(), every[:, 1::2].cos()], -1
    ).flatten(1)
    halves = torch.cat([angle.sin(), angle.cos()], 1)
    authors = turned(column / max(width - 2, 1))
    yield flipped, "sines in even columns, cosines in odd"
    yield halves, "these are halves: sine and cosine should alternate"
    yield sinusoids(length + 1, width)[1:], "the first position is 0, not 1"
    yield turned(column / 2 / width), "the exponent is 2i / d_model, not i"
    yield turned(2 * column / width), "2i twice? the columns are 0, 2, 4 already"
    yield turned(-column / width), "the frequencies shrink: divide, don't multiply"
    for base in (1_000, 100_000, 100, 10, math.e):
        yield turned(column / width, base), "the base is 10,000"
    yield authors, "divide by d_model, not d_model - 2 (the authors' code does that)"
    yield turned(0 * column), "all frequencies are 1: is there a // in the exponent?"
    for other in (angle.deg2rad(), angle.rad2deg()):
        yield table(other), "angles are radians, not degrees"
    yield table(angle / length), "positions are whole numbers, not shares of the length"
    yield table(-angle), "the sign of the sines: angles grow with the position"
    yield table(angle + math.pi / 2), "sines in even columns, without a shift"
    yield angle.sin().repeat_interleave(2, 1), "the odd columns are cosines"
    yield angle.cos().repeat_interleave(2, 1), "the even columns are sines"
    yield own_frequency, "sine and cosine of a pair share a frequency: 2i for both"


def _table(function: Answer, seed: int) -> None:
    length, width = sizes(seed, 7, 3)
    width *= 2
    answer = function(length, width)
    turned = isinstance(answer, Tensor) and answer.shape == (width, length)
    transposed = "positions go down, columns across: did you transpose?"
    need(not turned or width == length, transposed)
    right = sinusoids(length, width)
    answer = need_tensor(answer, (length, width))
    compare(answer, right, wrong_tables(length, width), tolerance=1e-3)
    compare(answer, right, hint="almost: are the angles exact?", tolerance=1e-5)


def _far(function: Answer, seed: int) -> None:
    far = 100_001 + seed % 1000
    for length, width in ((5, 10 + 2 * (seed % 7)), (3, 512), (1, 6)):
        answer = need_tensor(function(length, width), (length, width))
        hint = f"right for 6 columns, wrong for {width}" * (width != 6)
        compare(answer, sinusoids(length, width), hint=hint, tolerance=1e-5)
    answer = need_tensor(function(far, 6), (far, 6))
    exact = "inexact at position 100,000: are the angles float64?"
    compare(answer[-1], sinusoids(far, 6)[-1], hint=exact, tolerance=1e-5)
