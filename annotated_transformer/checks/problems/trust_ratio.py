"""One step of LAMB, problem 4.2."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from annotated_transformer.checks.common import (
    Answer,
    Function,
    Mistakes,
    compare,
    need,
    need_tensor,
    same,
    seeded,
    sizes,
    verdict,
)

__all__ = ["check_lamb_step"]

BETA1, BETA2, EPS = 0.9, 0.999, 1e-6
COARSE = 2e-3  # where eps is not what is asked
Case = tuple[Tensor, Tensor, Tensor, Tensor, int, float, float]
NAN = "NaN, as a norm is 0: the ratio is 1 where the weights OR the update are 0"


def check_lamb_step(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`lamb_step(weight, gradient, m, v, t, rate, decay)`: the new weight, m and v.

    Parts: "moments" (m and v), "zero" (where a norm is 0), "ratio", "decay".
    """
    parts = {"moments": _moments, "zero": _zero, "ratio": _ratio, "decay": _decay}
    return verdict(function, part, seed, **parts)


def moments(gradient: Tensor, m: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """The two running averages."""
    return (
        BETA1 * m + (1 - BETA1) * gradient,
        BETA2 * v + (1 - BETA2) * gradient**2,
    )


def adam(case: Case) -> Tensor:
    """The update before decay and ratio: m over the root of v, both corrected."""
    _, gradient, m, v, t, _, _ = case
    m, v = moments(gradient, m, v)
    return (m / (1 - BETA1**t)) / ((v / (1 - BETA2**t)).sqrt() + EPS)


def uncorrected(case: Case) -> Tensor:
    """The same, without bias correction."""
    m, v = moments(*case[1:4])
    return m / (v.sqrt() + EPS)


def trust(weight: Tensor, update: Tensor) -> float:
    """The trust ratio: the length of the weights in lengths of their update."""
    long, step = weight.norm().item(), update.norm().item()
    return long / step if long and step else 1.0


def cases(seed: int, decay: float) -> Iterator[Case]:
    """A first step, and a later one; the weights are longer or shorter than a step."""
    g, shape = seeded(seed + 7), sizes(seed, 3, 5)
    for t, size in ((1, 0.2), (4 + seed % 5, 3.0)):
        weight, gradient = torch.randn(2, *shape, generator=g)
        gradient += 0.3 * gradient.sign()  # so that eps hardly counts
        m, v = torch.zeros(2, *shape)
        if t > 1:
            m = torch.randn(*shape, generator=g) / 2
            v = torch.rand(*shape, generator=g) / 100
        yield size * weight, gradient, m, v, t, 0.1 + 0.01 * (seed % 7), decay


def stepped(function: Answer, case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """The three tensors that it answers."""
    found = function(*case)
    three = "return three tensors: the new weight, m and v"
    need(isinstance(found, tuple | list) and len(found) == 3, three)
    shape = tuple(case[0].shape)
    weight, m, v = (need_tensor(tensor, shape) for tensor in found)
    return weight, m, v


def _moments(function: Answer, seed: int) -> None:
    for case in cases(seed, 0.0):
        _, g, m, v, t, *_ = case
        first, second = moments(g, m, v)
        _, found_m, found_v = stepped(function, case)
        corrected = "is returned corrected: keep the average, correct only its use"
        fraction = "the new gradient counts by"
        wrong_m: Mistakes = (
            (second, "m and v are swapped: return weight, m, v"),
            (first / (1 - BETA1**t), f"m {corrected}"),
            (BETA1 * m + g, f"m: {fraction} 1 - 0.9"),
            ((1 - BETA1) * m + BETA1 * g, "m: 0.9 and 0.1 are swapped"),
            (BETA2 * m + (1 - BETA2) * g, "m takes 0.9, and v 0.999"),
            (m, "m stays as it was: return the new one"),
            (g, "m is the gradient: where is the running average?"),
        )
        wrong_v: Mistakes = (
            (second / (1 - BETA2**t), f"v {corrected}"),
            (BETA2 * v + g**2, f"v: {fraction} 1 - 0.999"),
            ((1 - BETA2) * v + BETA2 * g**2, "v: 0.999 and 0.001 are swapped"),
            (BETA1 * v + (1 - BETA1) * g**2, "m takes 0.9, and v 0.999"),
            (BETA2 * v + (1 - BETA2) * g, "v averages squares: square the gradient"),
            (BETA2 * v + (1 - BETA2) * first**2, "v squares the gradient, not m"),
            (BETA2 * v + (1 - BETA2) * g.norm() ** 2, "v has a number for each weight"),
            (v, "v stays as it was: return the new one"),
        )
        compare(found_m, first, wrong_m, f"m at step {t}")
        compare(found_v, second, wrong_v, f"v at step {t}", tolerance=1e-6)


def step_of(function: Answer, case: Case) -> Tensor:
    """How far the weights went down, in units of the rate."""
    weight, rate = case[0], case[5]
    new, _, _ = stepped(function, case)
    return (weight - new) / rate


def wrong_updates(case: Case) -> Mistakes:
    """Updates of Adam that are known to be wrong; the ratio is 1 here."""
    _, g, m, v, t, *_ = case
    m, v = moments(g, m, v)
    c1, c2 = 1 - BETA1**t, 1 - BETA2**t
    root, right = (v / c2).sqrt(), adam(case)
    where = "weights of zeros never move: the ratio is 1 where a norm is 0"
    no = "no bias correction: divide m by 1 - 0.9 ** t, and v by 1 - 0.999 ** t"
    yield torch.zeros_like(right), where
    yield uncorrected(case), no
    yield (m / c1) / (v.sqrt() + EPS), "v is not corrected: by 1 - 0.999 ** t"
    yield m / (root + EPS), "m is not corrected: by 1 - 0.9 ** t"
    yield (m * c1) / ((v * c2).sqrt() + EPS), "correct by dividing, not multiplying"
    yield (m / c1) / ((v / c2 + EPS).sqrt()), "eps stands beside the root, not in it"
    yield (m / c1) / root, "where is eps?"
    yield (m / c1) / (v / c2 + EPS), "divided by v: take its root"
    yield g / (root + EPS), "the gradient itself is used: use m"
    yield m / c1, "not divided by the root of v"
    yield -right, "the sign: the update is subtracted"
    for other in (t - 1, t + 1):
        if other:
            off = (m / (1 - BETA1**other)) / ((v / (1 - BETA2**other)).sqrt() + EPS)
            yield off, f"corrected for step {other}, but t is {t}: t counts from 1"


def _zero(function: Answer, seed: int) -> None:
    for weight, g, m, v, t, rate, _ in cases(seed, 0.0):
        for size in (1.0, 1e-6):  # where eps counts
            moved = size * g, size * m, size**2 * v
            case = torch.zeros_like(weight), *moved, t, rate, 0.3
            step = step_of(function, case)
            need(step.isfinite().all(), NAN)
            hint = f"step {t} from weights of zeros: there the ratio is 1"
            compare(step, adam(case), wrong_updates(case), hint)
        nothing = torch.zeros_like(g)
        step = step_of(function, (weight, nothing, nothing, nothing, t, rate, 0.0))
        need(step.isfinite().all(), NAN)
        need(not step.any(), "no gradient, no decay: the weights should stay")


def wrong_ratios(weight: Tensor, gradient: Tensor, update: Tensor) -> Mistakes:
    """Steps with a wrong ratio, each with its cause."""
    long, length = weight.norm(), update.norm()
    ratio = long / length
    sums = "a length is the root of the sum of squares: .norm()"
    rows = "one ratio for the whole matrix, not one for each row"
    yield update, "where is the trust ratio? The step is Adam's"
    yield update / ratio, "the ratio is upside down: weights over update"
    yield update * long, "not divided by the length of the update"
    yield update / length, "not multiplied by the length of the weights"
    yield update * long / gradient.norm(), "divided by the GRADIENT's length"
    yield update * ratio**2, "a length is the ROOT of the sum of squares"
    yield update * ratio.sqrt(), "the root was taken twice"
    yield update * ratio.clamp(max=1), "the ratio may be above 1: don't clip it"
    yield update * ratio.clamp(min=1), "the ratio may be below 1: don't clip it"
    yield update * weight.abs().sum() / update.abs().sum(), sums
    yield update * weight.abs().max() / update.abs().max(), sums
    yield update * weight.abs() / update.abs(), "number by number: take two lengths"
    for axis in (0, 1):
        one = partial(torch.norm, dim=axis, keepdim=True)
        yield update * one(weight) / one(update), rows
    yield -update * ratio, "the sign: the update is subtracted"


def compare_all(
    steps: list[Tensor], rights: list[Tensor], wrong: list[Mistakes], hint: str
) -> None:
    """Compare the steps of all cases at once: some mistakes show in one of them alone.

    A first step knows no running average, and a ratio that is clipped may be right.
    """
    mistakes = [
        (torch.stack([step for step, _ in each]), each[0][1])
        for each in zip(*wrong, strict=True)
    ]
    compare(torch.stack(steps), torch.stack(rights), mistakes, hint, COARSE)


def _ratio(function: Answer, seed: int) -> None:
    steps, rights, wrong = [], [], []
    for case in cases(seed, 0.0):
        weight, gradient, update = case[0], case[1], adam(case)
        steps.append(step_of(function, case))
        finite = steps[-1].isfinite().all()
        need(finite, "the step is not finite: what was divided?")
        rights.append(trust(weight, update) * update)
        wrong.append(wrong_ratios(weight, gradient, update))
    compare_all(steps, rights, wrong, "a first step and a later one, no decay")


def wrong_decays(case: Case) -> Mistakes:
    """Steps with a wrong decay, each with its cause."""
    weight, g, m, v, t, rate, decay = case
    plain, pull = adam(case), decay * weight

    def step(update: Tensor) -> Tensor:
        return trust(weight, update) * update

    alone = "the decay stands outside the ratio: it is part of the update"
    early = "the ratio was taken before the decay was added: of the whole update"
    coupled = adam((weight, g + pull, m, v, t, rate, 0.0))
    yield step(plain), "the decay is not used"
    yield step(plain) + pull, alone
    yield plain + pull, "where is the trust ratio?"
    yield trust(weight, plain) * (plain + pull), early
    yield step(coupled), "added to the gradient: Adam would divide it. Add it after"
    yield step(plain - pull), "the sign: decay * weight is added to the update"
    yield step(plain + rate * pull), "times the rate already: decay * weight"
    yield step(plain + decay), "decay times WEIGHT is added"
    yield step(plain + weight), "decay TIMES weight is added"
    yield step(plain + decay * weight**2), "decay * weight, not its square"


def _decay(function: Answer, seed: int) -> None:
    steps, rights, wrong = [], [], []
    for case in cases(seed, 0.3):
        update = adam(case) + case[6] * case[0]
        steps.append(step_of(function, case))
        rights.append(trust(case[0], update) * update)
        wrong.append(wrong_decays(case))
    if not all(same(a, b, COARSE) for a, b in zip(steps, rights, strict=True)):
        _zero(function, seed)  # if one of these is wrong, it is the cause
        _ratio(function, seed)
        compare_all(steps, rights, wrong, "a first step and a later one, decay 0.3")
