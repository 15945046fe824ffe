"""One update from several pieces, problem 2.3."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from annotated_transformer.checks.common import (
    Answer,
    Function,
    Mistake,
    compare,
    need,
    need_number,
    same,
    seeded,
    sizes,
    verdict,
)
from annotated_transformer.checks.problems.schedule import is_close
from annotated_transformer.checks.problems.toys import Piece, Recorder, ToyModel

__all__ = ["check_train_step"]


@dataclass
class StepRun:
    """One call of a student's training step, and what it did."""

    value: Any
    steps: list[tuple[list[float], Tensor]]
    pieces: list[Piece]
    model: ToyModel
    gradients: list[Tensor] = field(default_factory=list)


def run_step(function: Answer, seed: int, clip: float, stale: bool = False) -> StepRun:
    """Let the function make one update of a fresh toy model."""
    g = seeded(seed + 3)
    counts = (2, 5, 3) if seed == 0 else sizes(seed, 2, 5, 3)
    pieces = [
        Piece(torch.randn(n, 4, generator=g), 3 * torch.randn(n, generator=g))
        for n in counts
    ]
    model, untouched = ToyModel(seed), ToyModel(seed)
    gradients = []
    for piece in pieces:
        untouched.zero_grad()
        untouched(piece).backward()
        gradients.append(
            torch.cat([p.grad for p in untouched.parameters() if p.grad is not None])
        )
    optimizer = Recorder(model)
    if stale:
        (7 * model(pieces[0])).backward()
    value = function.let(model, optimizer, pieces, 0.01 + 0.001 * (seed % 5), clip)
    if (value is None or value is ...) and not optimizer.steps:
        raise Mistake("not done yet")
    return StepRun(value, optimizer.steps, pieces, model, gradients)


def check_train_step(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`train_step(model, optimizer, pieces, rate, clip)`: one update, from all pieces.

    `model(piece)` is a summed loss, `piece.n_tokens` counts its labels; returned is the
    loss per label. Parts: "gradient", "update", "clip".
    """
    return verdict(function, part, seed, gradient=_gradient, update=_update, clip=_clip)


def _gradient(function: Answer, seed: int) -> None:
    done = run_step(function, seed, 1e9)
    need(done.steps, "no update was made: where is optimizer.step()?")
    counts = [piece.n_tokens for piece in done.pieces]
    total, n = sum(counts), len(counts)
    need(
        len(done.steps) != n,
        f"{n} updates: the pieces share ONE, so step once, after the last",
    )
    need(len(done.steps) == 1, f"one update is wanted, not {len(done.steps)}")
    used, gs = done.steps[0][1], done.gradients
    right = sum(gs[1:], gs[0]) / total
    need(
        used.any(), "the gradient is zero at the step: zero_grad comes before backward"
    )
    compare(
        used,
        right,
        (
            (
                right * total,
                "nothing is divided: the gradient of the sum grows with the batch",
            ),
            (
                sum(g / k for g, k in zip(gs, counts, strict=True)) / n,
                "a mean of means: a short piece counts as much as a long one. Divide "
                "by the labels of ALL pieces",
            ),
            (
                sum(g / k for g, k in zip(gs, counts, strict=True)),
                "each piece is divided by its own labels, and all are added up",
            ),
            (right * total / n, "divided by the number of pieces, not of labels"),
            (
                sum(gs[:-1], torch.zeros(5)) / total,
                "the last piece is missing: is the step made too early?",
            ),
            (gs[-1] / total, "only the last piece is left: clear once, at the start"),
            (
                gs[-1] / counts[-1],
                "only the last piece is left: clear once, at the start",
            ),
            (gs[0] / total, "only the first piece counts"),
        ),
        "another gradient than that of the mean loss over all labels",
    )
    value = done.value
    need(value is not None, "return the loss per label")
    fresh = ToyModel(seed)
    losses = [fresh(piece).item() for piece in done.pieces]
    compare(
        need_number(value),
        sum(losses) / total,
        (
            (
                sum(losses),
                "right update, but the loss returned is a sum: divide it, too",
            ),
            (losses[-1], "right update, but the loss returned is of the last piece"),
            (
                losses[-1] / total,
                "right update, but the loss returned is of the last piece",
            ),
            (
                losses[-1] / counts[-1],
                "right update, but the loss returned is of the last piece",
            ),
        ),
        f"right update, but the loss per label is {sum(losses) / total:.3f}, "
        f"not {need_number(value):.3f}",
    )


def _update(function: Answer, seed: int) -> None:
    done = run_step(function, seed, 1e9, stale=True)
    need(done.steps, "no update was made: where is optimizer.step()?")
    rate = 0.01 + 0.001 * (seed % 5)
    rates, used = done.steps[-1]
    right = sum(done.gradients[1:], done.gradients[0]) / sum(
        piece.n_tokens for piece in done.pieces
    )
    need(len(done.steps) == 1, f"one update is wanted, not {len(done.steps)}")
    need(
        set(rates) != {0.0},
        "the update had rate 0: set the rate BEFORE the step",
    )
    need(
        0.0 not in rates,
        "only the first group of parameters got the rate: set it in every group",
    )
    need(
        all(is_close(r, rate) for r in rates), f"the rate should be {rate}, not {rates}"
    )
    stale = 7 * done.gradients[0]
    if same(used, right + stale):
        raise Mistake("old gradients are added: call zero_grad first")
    need(
        used.any(), "the gradient is zero at the step: zero_grad comes before backward"
    )


def _clip(function: Answer, seed: int) -> None:
    free = run_step(function, seed, 1e9)
    need(free.steps, "no update was made: where is optimizer.step()?")
    need(len(free.steps) == 1, f"one update is wanted, not {len(free.steps)}")
    whole = free.steps[-1][1]
    need(
        whole.any(),
        "the gradient is zero at the step: zero_grad comes before backward",
    )
    limit = whole.abs().max().item() / 2
    need(whole.norm() < 1e6, "a gradient shorter than `clip` stays as it is")
    clipped = run_step(function, seed, limit)
    need(clipped.steps, "no update was made: where is optimizer.step()?")
    used = clipped.steps[-1][1]
    total = sum(piece.n_tokens for piece in clipped.pieces)
    each = [g / total for g in clipped.gradients]
    each = [g * min(1.0, limit / g.norm().item()) for g in each]
    raw = sum(clipped.gradients[1:], clipped.gradients[0])
    grown = torch.zeros(5)
    for g in clipped.gradients:
        grown = grown + g / total
        grown = grown * min(1.0, limit / grown.norm().item())
    compare(
        used,
        whole * (limit / whole.norm()),
        (
            (whole, "not clipped: is it called after backward, and before the step?"),
            (
                sum(each[1:], each[0]),
                "clipped after each piece: clip once, after the last",
            ),
            (grown, "clipped after each piece: clip once, after the last"),
            (
                whole.clamp(-limit, limit),
                "each number was clipped by itself: shorten the whole vector",
            ),
            (
                raw * (limit / raw.norm()) / total,
                "clipped before the division: the limit is for the mean's gradient",
            ),
        ),
        f"clipped to length {used.norm():.3f}, not {limit:.3f}",
        tolerance=1e-3,
    )
