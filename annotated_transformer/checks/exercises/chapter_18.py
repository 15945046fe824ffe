"""Checks of chapter 18, When training goes wrong: one for each exercise."""

import math
from typing import Any

import torch
from torch import Tensor

from annotated_transformer.checks.common import (
    Answer,
    compare,
    exercise,
    need,
    need_number,
    need_tensor,
    normal,
    seeded,
)
from annotated_transformer.doctor import ward
from annotated_transformer.errors import InputError
from annotated_transformer.special import BOS, EOS, PAD, SPECIALS, UNK

__all__ = [
    "check_clip",
    "check_diagnosis",
    "check_matrix_rate",
    "check_noise",
    "check_ratio",
]

Gradients = list[Tensor]


def _joined(gradients: Gradients) -> Tensor:
    return torch.cat([gradient.flatten() for gradient in gradients])


def _scaled(gradients: Gradients, factor: Tensor) -> Tensor:
    return _joined(gradients) * factor.clamp(max=1)


def _clip_mistakes(gradients: Gradients, limit: float) -> list[tuple[Tensor, str]]:
    """What comes out by one mistake each, as one long vector."""
    norms = torch.stack([g.norm() for g in gradients])
    total, long = norms.norm(), _joined(gradients)
    each = [g * (limit / g.norm()).clamp(max=1) for g in gradients]
    always = (
        "gradients shorter than the limit stay as they are: the factor is at most 1"
    )
    alone = "each tensor by a norm of its own turns the whole: one factor for all"
    return [
        (_joined(each), alone),
        (long.clamp(-limit, limit), "that is clipping by value: it turns the gradient"),
        (long * limit / total, always),
        (long / total, "the norm should be the limit, not 1"),
        (_scaled(gradients, limit / total**2), "the norm is a root: sqrt of the sum"),
        (_scaled(gradients, limit / norms.sum()), "norms don't add up: squares do"),
        (_scaled(gradients, limit / norms.max()), "the norm of all, not the largest"),
        (
            _scaled(gradients, limit / long.abs().max()),
            "the norm, not the largest number",
        ),
        (_scaled(gradients, limit / long.abs().sum()), "squares, not absolute values"),
        (long, "nothing is clipped, though the norm is above the limit"),
    ]


@exercise
def check_clip(function: Answer) -> None:
    """`my_clip(gradients, limit)`: a list of tensors, all times one factor."""
    cases = [
        ([normal(3), normal(2, 5, seed=1), normal(1, seed=2)], 0.5),
        ([normal(3), normal(2, 5, seed=1)], 100.0),
        ([torch.tensor([3.0]), torch.tensor([4.0, 12.0])], 6.5),
        ([torch.tensor(-7.0)], 2.0),
    ]
    for gradients, limit in cases:
        answer = function(gradients, limit)
        case = f"total norm {_joined(gradients).norm():.3g}, limit {limit:g}"
        found = _as_list(answer, gradients)
        right = _scaled(gradients, limit / _joined(gradients).norm())
        compare(_joined(found), right, _clip_mistakes(gradients, limit), case)


def _as_list(answer: Any, gradients: Gradients) -> Gradients:
    """The answer as tensors of the right shapes."""
    found = list(answer) if hasattr(answer, "__iter__") else []
    tensors = all(isinstance(g, Tensor) for g in found)
    need(found and tensors, "return a list of tensors, one for each gradient")
    need(
        [g.shape for g in found] == [g.shape for g in gradients],
        "each gradient keeps its shape, and none is left out",
    )
    return found


@exercise
def check_ratio(function: Answer) -> None:
    """`my_ratio(before, after)`: the length of the change in lengths of the matrix."""
    for shape, size in (((3, 5), 0.1), ((2, 7), 3.0), ((1, 1), 0.01), ((4, 4), 0.0)):
        before, step = normal(*shape), size * normal(*shape, seed=1)
        after, old = before + step, before.norm()
        table = [
            (step.norm() / after.norm(), "divide by the length before the step"),
            (old / step.norm(), "upside down: change over matrix"),
            (step.norm(), "divide by the length of the matrix before"),
            ((after.norm() - old).abs() / old, "length of the change, not of lengths"),
            ((after.norm() - old) / old, "length of the change, not of lengths"),
            (after.norm() / old, "subtract first: the change is after - before"),
            (
                (step / before).abs().mean(),
                "lengths of the whole, not number by number",
            ),
            ((step.norm() / old) ** 2, "a length is a root: take the norm"),
            (step.abs().sum() / before.abs().sum(), "squares, not absolute values"),
        ]
        wrong = [(w.item(), what) for w, what in table if math.isfinite(w)]
        found, case = need_number(function(before, after)), f"a step of size {size}"
        compare(found, (step.norm() / old).item(), wrong if size else (), case)


@exercise
def check_matrix_rate(function: Answer) -> None:
    """`my_rate(weight, direction, wanted)`: the rate that gives this ratio."""
    for shape, size, wanted in (((3, 5), 0.1, 1e-3), ((2, 7), 3.0, 0.02)):
        weight, direction = normal(*shape), size * normal(*shape, seed=1)
        old, long = weight.norm(), direction.norm()
        table = [
            (wanted * long / old, "upside down: a long direction needs a low rate"),
            (wanted / long, "the ratio is in lengths of the weight: where is it?"),
            (wanted * old, "the step is rate times direction: where is its length?"),
            (old / long, "that gives a ratio of 1: where is the wanted one?"),
            (old / long / wanted, "twice as high a ratio needs twice the rate"),
            (wanted, "that is the ratio: which rate gives it?"),
            (wanted * (old / long) ** 2, "a length is a root: take the norm"),
            (wanted * weight.abs().sum() / direction.abs().sum(), "squares, not sizes"),
        ]
        wrong = [(float(w), what) for w, what in table]
        case = f"a direction of length {long:.3g}, a weight of {old:.3g}, {wanted:g}"
        found = need_number(function(weight, direction, wanted))
        compare(found, float(wanted * old / long), wrong, case)


def _noise_sources() -> Tensor:
    """Many rows of words, each with an end token and padding; some words are UNK."""
    src = torch.randint(len(SPECIALS), 50, (40, 30), generator=seeded(0))
    src[:, 0], src[::3, 4] = BOS, UNK
    ends = torch.randint(20, 29, (40,), generator=seeded(1))
    columns = torch.arange(30)
    src = src.masked_fill(columns == ends[:, None], EOS)
    return src.masked_fill(columns > ends[:, None], PAD)


@exercise
def check_noise(function: Answer) -> None:
    """`my_noise(src, share, generator)`: some words of each source become UNK."""
    src, kinds = _noise_sources(), {"padding": PAD, "start": BOS, "end": EOS}
    words = src > UNK
    for share in (0.25, 0.0, 1.0, 0.6):
        first = need_tensor(function(src, share, seeded(2)), tuple(src.shape))
        hit = first != src
        for name, token in kinds.items():
            need(not hit[src == token].any(), f"the {name} tokens stay: words alone")
        need((first[hit] == UNK).all(), f"a word that is hit becomes UNK, {UNK}")
        found, case = hit[words].double().mean().item(), f"share {share:g}: "
        flipped = share not in (0.5, found) and abs(found - 1 + share) < 0.04
        need(not flipped, f"{case}so many stay; how many should be hit?")
        right = abs(found - share) <= (0.08 if 0 < share < 1 else 0)
        need(right, f"{case}{found:.0%} of the words became UNK")
        if 0 < share < 1:
            alike = (hit == hit[:1])[words & words[:1]].all()
            need(not alike, "each word draws for itself, in each row anew")
            again = function(src, share, seeded(2))
            need(torch.equal(again, first), "draw from `generator`, and from it alone")
            other = function(src, share, seeded(3))
            need(not torch.equal(other, first), "the same words each time: draw anew")


def check_diagnosis(number: object, cause: object) -> str:
    """Whether patient `number` (1 to 6) has this cause; else, what to measure."""
    try:
        found = ward.diagnose(number, cause)
    except InputError as error:
        return str(error)
    return "correct" if found == "right" else found
