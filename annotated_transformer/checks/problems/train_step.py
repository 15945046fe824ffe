"""One update from several pieces, problem 2.3."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from annotated_transformer.checks.common import (
    NOT_DONE,
    Answer,
    Function,
    Mistakes,
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
    """One call of a student's training step, and the one update that it made."""

    value: Any
    rates: list[float]
    used: Tensor  # the gradient at the update
    pieces: list[Piece]
    model: ToyModel
    gradients: list[Tensor]  # of each piece's summed loss

    @property
    def counts(self) -> list[int]:
        """The labels of each piece."""
        return [piece.n_tokens for piece in self.pieces]

    @property
    def right(self) -> Tensor:
        """The gradient of the mean loss over all labels."""
        return torch.stack(self.gradients).sum(0) / sum(self.counts)


def run_step(
    function: Answer, seed: int, clip: float, stale: bool = False, n: int = 3
) -> StepRun:
    """Let the function make one update of a fresh toy model, from n pieces."""
    g = seeded(seed + 3)
    counts = (2, 5, 3) if seed == 0 else sizes(seed, 2, 5, 3)
    pieces = [
        Piece(torch.randn(n, 4, generator=g), 3 * torch.randn(n, generator=g))
        for n in counts[:n]
    ]
    model, untouched = ToyModel(seed), ToyModel(seed)
    gradients = []
    for piece in pieces:
        parts = torch.autograd.grad(untouched(piece), list(untouched.parameters()))
        gradients.append(torch.cat(parts))
    optimizer = Recorder(model)
    if stale:
        (7 * model(pieces[0])).backward()
    value = function.let(model, optimizer, pieces, rate_of(seed), clip)
    steps, nothing = optimizer.steps, value is None or value is ...
    need(steps or not nothing, NOT_DONE)
    need(steps, "no update was made: where is optimizer.step()?")
    if len(pieces) > 1:
        share = f"{len(steps)} updates: the pieces share ONE, so step once, after the"
        need(len(steps) != len(pieces), f"{share} last")
    need(len(steps) == 1, f"one update is wanted, not {len(steps)}")
    zero = "the gradient is zero at the step: zero_grad comes before backward"
    need(steps[0][1].any(), zero)
    need(steps[0][1].isfinite().all(), "the gradient is not finite: what was divided?")
    return StepRun(value, *steps[0], pieces, model, gradients)


def rate_of(seed: int) -> float:
    """The learning rate that is asked for."""
    return 0.01 + 0.001 * (seed % 5)


def check_train_step(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`train_step(model, optimizer, pieces, rate, clip)`: one update, from all pieces.

    `model(piece)` is a summed loss, `piece.n_tokens` counts its labels; returned is the
    loss per label. Parts: "gradient", "update", "clip".
    """
    return verdict(function, part, seed, gradient=_gradient, update=_update, clip=_clip)


def wrong_gradients(done: StepRun) -> Mistakes:
    """Gradients that are known to be wrong, each with its cause."""
    right, gs, counts = done.right, done.gradients, done.counts
    total, n = sum(counts), len(counts)
    own = torch.stack([g / k for g, k in zip(gs, counts, strict=True)])
    means = "a mean of means: a short piece counts as much as a long one. Divide"
    last = "only the last piece is left: clear once, at the start"
    missing = "the last piece is missing: is the step made too early?"
    sums = "nothing is divided: the gradient of the sum grows with the batch"
    yield right * total, sums
    yield own.mean(0), f"{means} by the labels of ALL pieces"
    yield own.sum(0), "each piece is divided by its own labels, and all are added up"
    yield right * total / n, "divided by the number of pieces, not of labels"
    yield right / n, "divided twice: by the labels, and by the number of pieces"
    yield right / total, "divided twice by the number of labels"
    yield (right * total - gs[-1]) / total, missing
    yield (right * total - gs[-1]) / (total - counts[-1]), missing
    yield gs[-1] / total, last
    yield gs[-1] / counts[-1], last
    yield gs[-1], last
    yield gs[0] / total, "only the first piece counts"
    yield gs[0] / counts[0], "only the first piece counts"
    yield right * total / counts[-1], "divided by the labels of the last piece alone"
    yield -right, "the sign is reversed: minimize the loss itself"
    sofar = torch.tensor(counts).cumsum(0)
    growing = torch.stack([g / k for g, k in zip(gs, sofar, strict=True)]).sum(0)
    yield growing, "divided by the labels so far: count those of all pieces first"
    again = torch.stack(gs).cumsum(0).sum(0) / total
    yield again, "earlier pieces count again and again: backward on each loss once"


def _gradient(function: Answer, seed: int) -> None:
    for n in (3, 1, 2):
        done = run_step(function, seed, 1e9, n=n)
        hint = f"the gradient of the mean over all labels, {n} pieces"
        compare(done.used, done.right, wrong_gradients(done), hint)
        need(done.value is not None, "return the loss per label")
        fresh, total = ToyModel(seed), sum(done.counts)
        losses = [fresh(piece).item() for piece in done.pieces]
        means = [loss / k for loss, k in zip(losses, done.counts, strict=True)]
        so = "right update, but the loss returned is"
        mistakes = (
            (sum(losses), f"{so} a sum: divide it, too"),
            (losses[-1], f"{so} of the last piece"),
            (losses[-1] / total, f"{so} of the last piece"),
            (means[-1], f"{so} of the last piece"),
            (sum(losses) / len(losses), f"{so} divided by pieces, not by labels"),
            (sum(means) / len(means), f"{so} a mean of means"),
            (sum(means), f"{so} a sum of means"),
            (sum(losses) / total**2, f"{so} divided twice"),
            (total, f"{so} the number of labels"),
        )
        compare(need_number(done.value), sum(losses) / total, mistakes, so[:12])


def _update(function: Answer, seed: int) -> None:
    done = run_step(function, seed, 1e9, stale=True)
    rates, rate = done.rates, rate_of(seed)
    need(set(rates) != {0.0}, "the update had rate 0: set the rate BEFORE the step")
    every = "only the first group of parameters got the rate: set it in every group"
    need(0.0 not in rates, every)
    right = all(is_close(r, rate) for r in rates)
    need(right, f"the rate should be {rate}, not {rates}")
    old = 7 * done.gradients[0]
    scales = (1, sum(done.counts), len(done.counts))  # however the pieces are divided
    added = any(same(done.used, scale * done.right + old) for scale in scales)
    need(not added, "old gradients are added: call zero_grad first")


def _clip(function: Answer, seed: int) -> None:
    whole = run_step(function, seed, 1e9).used
    limit = whole.abs().max().item() / 2
    clipped = run_step(function, seed, limit)
    hint = f"clipped to length {clipped.used.norm():.3f}, not {limit:.3f}"
    right = whole * (limit / whole.norm())
    wrong = wrong_clips(clipped, whole, limit)
    compare(clipped.used, right, wrong, hint, tolerance=1e-3)
    above = whole.norm().item() * 1.5
    short = "a gradient shorter than `clip` stays as it is"
    compare(run_step(function, seed, above).used, whole, hint=short)


def wrong_clips(done: StepRun, whole: Tensor, limit: float) -> Mistakes:
    """Gradients clipped in a wrong way, each with its cause."""

    def shortened(g: Tensor) -> Tensor:
        return g * min(1.0, limit / g.norm().item())

    each = [shortened(g / sum(done.counts)) for g in done.gradients]
    raw, grown = torch.stack(done.gradients).sum(0), torch.zeros(5)
    for g in done.gradients:
        grown = shortened(grown + g / sum(done.counts))
    late = "clipped after each piece: clip once, after the last"
    divided = "clipped before the division: the limit is for the mean's gradient"
    alone = "each number was clipped by itself: shorten the whole vector"
    apart = "each parameter was clipped by itself: one length for all of them"
    yield whole, "not clipped: is it called after backward, and before the step?"
    yield torch.stack(each).sum(0), late
    yield grown, late
    yield whole.clamp(-limit, limit), alone
    yield torch.cat([shortened(whole[:4]), shortened(whole[4:])]), apart
    yield shortened(raw) / sum(done.counts), divided
    yield whole / whole.norm(), "its length is 1 now: shorten it to `clip`"
    yield whole * limit, "multiplied by `clip`: shorten it to that length"
    yield whole * (limit / whole.norm() ** 2), "the length is a root of squares"
