"""Checks of chapter 10, Optimizer and schedule: one for each exercise."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import accumulate as running
from typing import Any

import torch
from torch import Tensor, nn

from annotated_transformer.checks.common import (
    NOT_DONE,
    Answer,
    compare,
    errors_mean,
    exercise,
    need,
    need_number,
    normal,
    same,
)

__all__ = ["check_adam", "check_loop", "check_warmup"]


def _warmup(peak: float, d_model: int) -> float:
    return 1 / (peak**2 * d_model)


@exercise
def check_warmup(function: Answer) -> None:
    """`my_warmup(peak, d_model)`: the warmup that gives Eq. 3 this peak."""
    for peak, d in ((0.003, 100), (0.0007, 512), (0.0004, 1024), (0.02, 2)):
        answer = need_number(function(peak, d))
        mistakes = (
            (1 / peak**2, "where is the width? The peak depends on d_model, too"),
            (1 / (peak * d), "is the peak squared? Undo the root first"),
            (d / peak**2, "divide by d_model: a wider model has a lower peak anyway"),
            (peak**2 * d, "upside down: a lower peak needs a longer warmup"),
            ((peak * d) ** -0.5, "that is Eq. 3's peak with warmup and peak swapped"),
            (1 / (peak * d) ** 2, "only the peak is squared, not d_model"),
            (1 / (peak**2 * d**0.5), "d_model stands under the root already: no root"),
            (1 / (peak * d**0.5), "undo the root of the warmup, too: square"),
            (1 / (peak**0.5 * d), "undo a root by squaring the peak, not by a root"),
            (peak**-2 - d, "d_model and warmup are multiplied: divide by d_model"),
            (peak, "that is the peak: which warmup gives it?"),
        )
        hint = f"for a peak of {peak} and width {d}"
        compare(answer, _warmup(peak, d), mistakes, hint, 1e-3)


Step = Callable[[Tensor, Tensor, Tensor, Tensor, int, float], Sequence[Tensor]]


@exercise
def check_adam(function: Answer) -> None:
    """`my_adam(weight, gradient, mean, square, step, rate)`: one step."""
    gradients = normal(4, 6).double()
    gradients[:, 4:] *= 1e-9  # as small as eps
    run = partial(_trajectory, gradients=gradients, rate=0.1)
    one, zeros = gradients[0].clone(), (torch.zeros(6).double() for _ in range(3))
    first = function.let(next(zeros), one.clone(), *zeros, 1, 0.1)
    wanted = "return the new weight, mean and square"
    need(first is not None and first is not ..., f"{NOT_DONE}: {wanted}")
    three = isinstance(first, tuple | list) and len(first) == 3
    need(three, f"{wanted}, all three")
    mixed = same(first[2], (1 - 0.9) * one, 1e-9) or same(first[0], 0.02 * one**2, 1e-9)
    need(not mixed, f"{wanted}, in this order")
    answer, right = run(function), run(_adam)
    found, weights = answer[:, 0], right[:, 0]
    if not same(found, weights, 1e-9):
        for wrong, message in ADAM_MISTAKES:
            mistaken = run(partial(_adam, **wrong))[:, 0]
            need(not same(found, mistaken, 1e-9), message)
    compare(found[0], weights[0], hint="the weight after step 1", tolerance=1e-9)
    averages = (answer / right)[:, 1:]  # some are as small as 1e-20
    kept = same(averages[0], torch.ones(2, 6), 1e-9)
    need(kept, "the first weight is right: now return mean and square uncorrected")
    later = "step 1 is right, later ones are not: where does step enter?"
    need(same(found, weights, 1e-9) and same(averages, averages**0, 1e-9), later)
    unseen = "a gradient that is always 0 leaves its weight alone"
    nothing = torch.zeros(3, 2, 3).double()
    for more, rate, start, case in (
        (nothing, 0.1, 1, unseen),
        (1e4 * normal(3, 2, 3).double(), 3e-4, 1000, "from step 1000 on, rate 0.0003"),
        (normal(2, 1).double(), 0.0, 1, "a rate of 0"),
    ):
        found, right = (_trajectory(f, more, rate, start) for f in (function, _adam))
        compare(found, right, hint=case, tolerance=1e-9)


def _trajectory(
    step_of: Step, gradients: Tensor, rate: float, start: int = 1
) -> Tensor:
    """Weight, mean and square after each step."""
    shape = gradients.shape[1:]
    weight = normal(*shape, seed=1).double()
    mean, square = torch.zeros_like(weight), torch.zeros_like(weight)
    after = []
    for step, gradient in enumerate(gradients, start):
        answer = step_of(weight, gradient, mean, square, step, rate)
        weight, mean, square = (torch.as_tensor(x).detach().clone() for x in answer)
        with errors_mean("weight, mean and square keep their shape"):
            after.append(torch.stack([weight, mean, square]).view(3, *shape))
    return torch.stack(after)


def _adam(
    weight: Tensor,
    gradient: Tensor,
    mean: Tensor,
    square: Tensor,
    step: int,
    rate: float,
    b1: float = 0.9,
    b2: float = 0.98,
    eps: float = 1e-9,
    corrected: str = "ms",
    how: str = "",
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of Adam (§5.3), or of a version with a mistake."""
    old = mean, square
    mean = b1 * mean + (1 - b1) * gradient
    square = b2 * square + (1 - b2) * (gradient if how == "square" else gradient**2)
    m, s = old if how == "late" else (mean, square)
    t = {"step 1": 1, "step + 1": step + 1}.get(how, step)
    m = m / (1 - b1**t) if "m" in corrected else m
    s = s / (1 - b2**t) if "s" in corrected else s
    ruler = {
        "eps inside": (s + eps).sqrt(),
        "eps^2 inside": (s + eps**2).sqrt(),
        "no root": s + eps,
        "eps early": s.sqrt() + eps / math.sqrt(1 - b2**step),
        "product": 1 / (s.sqrt() + eps),
    }.get(how, s.sqrt() + eps)
    top = {
        "gradient": gradient,
        "uphill": -m,
        "no rate": m / rate,
        "decay": m + 0.01 * weight * ruler,
        "times": m * (1 - b1**step) ** 2,
    }.get(how, m)
    start = 0 if how == "no weight" else weight
    return start - rate * top / ruler, mean, square


ADAM_MISTAKES: tuple[tuple[dict[str, Any], str], ...] = (
    ({"corrected": ""}, "no bias correction: the averages began at 0"),
    ({"corrected": "m"}, "only the mean is corrected, not the square"),
    ({"corrected": "s"}, "only the square is corrected, not the mean"),
    ({"how": "step 1"}, "the correction fades: its powers are those of step"),
    ({"how": "step + 1"}, "step counts from 1 already: don't add 1"),
    ({"how": "times"}, "divide the mean by 1 - 0.9^step, don't multiply"),
    ({"how": "square"}, "the second average is of the gradient's square"),
    ({"how": "no root"}, "the square is not yet a size: take its root"),
    ({"how": "no root", "corrected": ""}, "no root, and no bias correction"),
    ({"how": "product"}, "divide by the root, don't multiply"),
    ({"how": "eps inside"}, "is your eps inside the root?"),
    ({"how": "eps^2 inside"}, "is your eps inside the root?"),
    ({"how": "eps early"}, "add eps after the square is corrected, not before"),
    ({"how": "gradient"}, "the step follows the mean, not the last gradient"),
    ({"how": "no rate"}, "where is the rate?"),
    ({"how": "no weight"}, "that is the step alone: take it from the weight"),
    ({"how": "uphill"}, "uphill: subtract the step"),
    ({"how": "late"}, "the step uses the old averages: update them first"),
    ({"eps": 0.0}, "where is eps? An unseen word would divide 0 by 0"),
    ({"eps": 1e-8}, "eps is 1e-9 in §5.3; 1e-8 is PyTorch's default"),
    ({"eps": 1e-6}, "eps is 1e-9 in §5.3"),
    ({"b1": 0.98, "b2": 0.9}, "betas swapped: the mean has 0.9, the square 0.98"),
    ({"b2": 0.999}, "beta2 is 0.98 in §5.3; 0.999 is PyTorch's default"),
    ({"b1": 0.1, "b2": 0.02}, "0.9 and 0.98 are for the old averages, not the new"),
    ({"b1": 0.1}, "0.9 is for the old mean, 0.1 for the new gradient"),
)


class Recorder(torch.optim.SGD):
    """Notes the rate of each group and the first gradient, and moves nothing."""

    def __init__(self, n_groups: int):
        self.weights = [nn.Parameter(torch.zeros(1)) for _ in range(n_groups)]
        super().__init__([{"params": [w]} for w in self.weights], lr=0.0)
        self.rates: list[list[float]] = []
        self.gradients: list[float] = []

    def step(self, closure: Any = None) -> Any:
        """What is there at this moment."""
        self.rates.append([round(float(g["lr"]), 6) for g in self.param_groups])
        gradient = self.weights[0].grad
        self.gradients.append(0.0 if gradient is None else gradient.item())


@exercise
def check_loop(function: Answer) -> None:
    """`my_loop(optimizer, rate, epochs, backward, accumulate)`: its clock."""
    for case in ((2, 2, 6, 3), (2, 3, 4, 2), (3, 2, 3, 1), (1, 1, 20, 5), (2, 0, 6, 3)):
        _need_loop(function, *case)


def _need_loop(
    loop: Answer, n_groups: int, n_epochs: int, length: int, accumulate: int
) -> None:
    optimizer = Recorder(n_groups)
    numbers = [float(2**i % 19) for i in range(n_epochs * length)]
    starts = range(0, len(numbers), length)
    epochs = [numbers[start : start + length] for start in starts]

    def rate(step: int) -> float:
        first = "rate was asked for step {}: it counts updates, from 1"
        need(n_groups == 2 or step >= 1, first.format(step))
        return float(step)

    def backward(batch: float) -> None:
        (batch * torch.cat([*optimizer.weights]).sum()).backward()

    loop.let(optimizer, rate, epochs, backward, accumulate)
    _need_updates(optimizer, numbers, accumulate)
    if numbers:
        _need_clock(optimizer, len(numbers) // accumulate, n_epochs, accumulate)


def _updates(n: int) -> list[str]:
    return [f"update {i + 1}" for i in range(n)]


def _need_updates(optimizer: Recorder, batches: list[float], a: int) -> None:
    n = len(batches) // a
    found = len(optimizer.rates)
    need(found or not n, f"{NOT_DONE}: no update was made")
    many = f"{len(batches)} batches, {a} to an update, are {n} updates, not {found}"
    need(found == n, many)
    sums = [sum(batches[i : i + a]) for i in range(0, n * a, a)]
    after = "zero_grad after the step only"
    compare(
        optimizer.gradients,
        sums,
        (
            ([0.0] * n, "no gradient is left when the step is made: " + after),
            (list(running(sums)), "gradients pile up: where is zero_grad?"),
            (batches[a - 1 :: a], f"only the last of {a} batches counts: {after}"),
            ([x / a for x in sums], "backward is right as it is: divide nothing"),
        ),
        f"a gradient is not the sum of its {a} batches: {after}",
        cases=_updates(n),
    )


def _need_clock(optimizer: Recorder, n: int, n_epochs: int, a: int) -> None:
    first, *others = (list(rates) for rates in zip(*optimizer.rates, strict=True))
    zero = "every rate is 0: set it. (LambdaLR multiplies the optimizer's lr, here 0)"
    need(any(map(any, (first, *others))), zero)
    for other, which in zip(others, ("second", "third"), strict=False):
        idle = first != other and (0.0 in other or len(set(other)) == 1)
        need(not idle, f"the {which} group of parameters never gets a rate")
        need(first == other, f"groups have other rates: {first} and {other}")
    clock = [float(i) for i in range(1, n + 1)]
    zero = "the first update has rate 0: set it before the step, and count from 1"
    mistakes = _clock_mistakes(clock, n // n_epochs, a)
    compare(first, clock, mistakes, "" if first[0] else zero, cases=_updates(n))


def _clock_mistakes(
    clock: list[float], each: int, a: int
) -> Iterator[tuple[list[float], str]]:
    n_epochs, epoch = len(clock) // each, clock[:each]
    again = "the clock begins again with each epoch: count over all of them"
    yield epoch * n_epochs, again
    behind = "one behind: is the rate set before the step, and counted from 1?"
    yield [x - 1 for x in clock], behind
    yield [x + 1 for x in clock], "one ahead: the first update has step 1's rate"
    for b in range(-a, 2):
        batches = "the clock counts batches: count updates"
        yield [a * x + b for x in clock], batches
        yield [a * x + b for x in epoch] * n_epochs, f"{batches}, of all epochs"
    by_epoch = [float(i // each) for i in range(len(clock))]
    yield by_epoch, "the clock counts epochs, from 0"
    yield [x + 1 for x in by_epoch], "the clock counts epochs: count updates"
    yield [1.0] * len(clock), "the rate never changes: what does step count?"
