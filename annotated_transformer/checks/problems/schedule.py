"""The learning rate of Eq. 3, problem 2.2."""

import math
from collections.abc import Callable, Iterator, Sequence

import torch

from annotated_transformer.checks.common import (
    Answer,
    Function,
    compare,
    errors_mean,
    in_proportion,
    need,
    need_number,
    verdict,
)
from annotated_transformer.schedule import inverse_square_root

__all__ = ["check_rate"]

Formula = Callable[[float], float]
RISE, FALL = (0.001, 0.01, 0.3, 0.7), (1.5, 4, 25, 100)  # in warmups


def check_rate(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`rate(step, d_model, warmup)`: the learning rate of Eq. 3 (§5.3), from step 1.

    Parts: "rise", "fall", "ends" (the peak, and step 0, which counts as step 1).
    """
    return verdict(function, part, seed, rise=_rise, fall=_fall, ends=_ends)


def is_close(a: float, b: float) -> bool:
    """Equal numbers, up to rounding."""
    return math.isclose(a, b, rel_tol=1e-6)


def wrong_rates(d_model: int, warmup: int) -> Iterator[tuple[Formula, str]]:
    """Formulas that are known to be wrong, each with its cause."""
    size = d_model**-0.5

    def lower(rise: Formula, fall: Formula = lambda s: s**-0.5) -> Formula:
        return lambda s: size * min(fall(s), rise(s))

    def rise(s: float) -> float:
        return s * warmup**-1.5

    def eq_3(s: float) -> float:
        return min(s**-0.5, rise(s))

    max_for_min = "max instead of min: it falls first, and rises for ever"
    sign = "the sign of an exponent: d_model ** -0.5, wider models learn slower"
    after = "after the warmup it should fall: step ** -0.5"
    yield lambda s: size * max(s**-0.5, rise(s)), max_for_min
    yield eq_3, "where is d_model ** -0.5?"
    yield lambda s: eq_3(s) / size, sign
    yield lambda s: eq_3(s) / d_model, "divided by d_model: divide by its root"
    yield lower(lambda s: s * warmup**-0.5), "the rise is too steep: warmup ** -1.5"
    yield lower(lambda s: s / warmup), "the rise ends at 1, not at warmup ** -0.5"
    yield lambda s: size * rise(s), "it rises for ever: where is step ** -0.5?"
    yield lambda s: size * s**-0.5, "there is no warmup"
    yield lower(rise, lambda s: s**0.5), after
    yield lower(rise, lambda s: warmup**-0.5), after
    yield lower(rise, lambda s: 1 / s), "it falls too fast: with the ROOT of the step"
    yield lower(lambda s: s**-1.5), "the rise is the step times warmup ** -1.5"
    yield lambda s: size * (s**-0.5 + rise(s)), "the lower of the two, not their sum"
    yield lambda s: size * s**-0.5 * rise(s), "the lower of the two, not their product"
    ahead = "one step ahead: the first update has the rate of step 1"
    yield lambda s: size * eq_3(s + 1), ahead
    behind = "one step behind: the first update has rate 0"
    yield lambda s: size * min(max(s - 1, 1) ** -0.5, rise(s - 1)), behind


def _rates(function: Answer, seed: int, shares: Sequence[float]) -> None:
    d_model, warmup = (512, 4000) if seed == 0 else (48 + seed % 11, 300 + seed % 97)

    def asked(shares: Sequence[float]) -> tuple[list[int], list[float]]:
        steps = [max(1, int(share * warmup)) for share in shares]
        return steps, [need_number(function(s, d_model, warmup)) for s in steps]

    at, found = asked(shares)
    right = [inverse_square_root(s, d_model=d_model, warmup=warmup) for s in at]
    if all(map(is_close, found, right)):
        return
    for steps, rates in (asked((*RISE, *FALL)), (at, found)):  # the whole curve first
        for formula, message in wrong_rates(d_model, warmup):
            need(not all(map(is_close, rates, map(formula, steps))), message)
    # Rates are small: compare each as a share of what it should be.
    i = next(i for i in range(len(at)) if not is_close(found[i], right[i]))
    shown = f"should have {right[i]:.5g}, not {found[i]:.5g}"
    relative = torch.tensor([a / b for a, b in zip(found, right, strict=True)])
    times = in_proportion(relative, torch.ones(len(at)))
    need(False, f"step {at[i]} of {warmup} warmup steps {shown}{times}")


def _rise(function: Answer, seed: int) -> None:
    _rates(function, seed, RISE)


def _fall(function: Answer, seed: int) -> None:
    _rates(function, seed, FALL)


def _ends(function: Answer, seed: int) -> None:
    _rates(function, seed, (0, 1, 0.999, 1.001))
    d_model, warmup = 64 + seed, 100
    with errors_mean("step 0 divides by zero: count it as step 1", ZeroDivisionError):
        first = need_number(function(0, d_model, warmup))
    right = inverse_square_root(1, d_model=d_model, warmup=warmup)
    need(is_close(first, right), f"step 0 should count as step 1, not have {first:.4g}")
    found = need_number(function(3, 100, 1))  # a warmup of one step
    compare(found, 0.1 * 3**-0.5, hint="warmup = 1, step 3", tolerance=1e-6)
