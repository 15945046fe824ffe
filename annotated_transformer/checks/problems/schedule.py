"""The learning rate of Eq. 3, problem 2.2."""

import math
from collections.abc import Sequence

from annotated_transformer.checks.common import (
    Function,
    Mistake,
    ask,
    need_number,
    verdict,
)
from annotated_transformer.schedule import inverse_square_root

__all__ = ["check_rate"]


def check_rate(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`rate(step, d_model, warmup)`: the learning rate of Eq. 3 (§5.3), from step 1.

    Parts: "rise", "fall", "ends" (the peak, and step 0, which counts as step 1).
    """
    return verdict(function, part, seed, rise=_rise, fall=_fall, ends=_ends)


def _rates(function: Function, seed: int, steps: Sequence[float]) -> None:
    d_model, warmup = (512, 4000) if seed == 0 else (48 + seed % 11, 300 + seed % 97)
    at = [max(1, int(step * warmup)) for step in steps]
    found = [need_number(ask(function, step, d_model, warmup)) for step in at]

    def rates(formula: Function) -> list[float]:
        return [formula(step) for step in at]

    size = d_model**-0.5
    right = rates(lambda s: inverse_square_root(s, d_model=d_model, warmup=warmup))

    def is_like(wrong: list[float]) -> bool:
        return all(
            math.isclose(a, b, rel_tol=1e-6) for a, b in zip(found, wrong, strict=True)
        )

    if is_like(right):
        return
    for formula, message in (
        (
            lambda s: size * max(s**-0.5, s * warmup**-1.5),
            "max instead of min: it falls first, and rises for ever",
        ),
        (lambda s: min(s**-0.5, s * warmup**-1.5), "where is d_model ** -0.5?"),
        (
            lambda s: d_model**0.5 * min(s**-0.5, s * warmup**-1.5),
            "the sign of an exponent: d_model ** -0.5, wider models learn slower",
        ),
        (
            lambda s: min(s**-0.5, s * warmup**-1.5) / d_model,
            "divided by d_model: divide by its root",
        ),
        (
            lambda s: size * min(s**-0.5, s * warmup**-0.5),
            "the rise is too steep: warmup ** -1.5",
        ),
        (
            lambda s: size * min(s**-0.5, s / warmup),
            "the rise ends at 1, not at warmup ** -0.5",
        ),
        (
            lambda s: size * s * warmup**-1.5,
            "it rises for ever: where is step ** -0.5?",
        ),
        (lambda s: size * s**-0.5, "there is no warmup"),
        (
            lambda s: size * min(s**0.5, s * warmup**-1.5),
            "after the warmup it should fall: step ** -0.5",
        ),
        (
            lambda s: size * min(1 / s, s * warmup**-1.5),
            "it falls too fast: with the ROOT of the step",
        ),
        (
            lambda s: size * min((s + 1) ** -0.5, (s + 1) * warmup**-1.5),
            "one step ahead: the first update has the rate of step 1",
        ),
        (
            lambda s: size * min(max(s - 1, 1) ** -0.5, (s - 1) * warmup**-1.5),
            "one step behind: the first update has rate 0",
        ),
    ):
        if is_like(rates(formula)):
            raise Mistake(message)
    i = next(i for i in range(len(at)) if not is_close(found[i], right[i]))
    raise Mistake(
        f"step {at[i]} of {warmup} warmup steps should have {right[i]:.4g}, "
        f"not {found[i]:.4g}"
    )


def is_close(a: float, b: float) -> bool:
    """Equal numbers, up to rounding."""
    return math.isclose(a, b, rel_tol=1e-6)


def _rise(function: Function, seed: int) -> None:
    _rates(function, seed, (0.001, 0.01, 0.3, 0.7))


def _fall(function: Function, seed: int) -> None:
    _rates(function, seed, (1.5, 4, 25, 100))


def _ends(function: Function, seed: int) -> None:
    _rates(function, seed, (0, 1, 0.999, 1.001))
    d_model, warmup = 64 + seed, 100
    try:
        first = need_number(ask(function, 0, d_model, warmup))
    except ZeroDivisionError:
        raise Mistake("step 0 divides by zero: count it as step 1") from None
    if not is_close(first, inverse_square_root(1, d_model=d_model, warmup=warmup)):
        raise Mistake(f"step 0 should count as step 1, not have {first:.4g}")
