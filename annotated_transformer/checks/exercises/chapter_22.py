"""Checks of chapter 22, Shipping it, and of 22 Deeper: one for each exercise."""

import torch
import torch.nn.functional as F
from torch import Tensor

from annotated_transformer.checks.common import (
    Answer,
    compare,
    errors_mean,
    exercise,
    need,
    need_gradient,
    need_number,
    need_tensor,
    normal,
)
from annotated_transformer.checks.problems.int8 import TOP, matrices

__all__ = [
    "check_bfloat16",
    "check_distilled",
    "check_four_bits",
    "check_rounded_rows",
    "check_zero_point",
]


def _shifted(x: Tensor, low: Tensor, high: Tensor, steps: int = 255) -> Tensor:
    scale = (high - low) / steps
    zero = (-low / scale).round()
    return (((x / scale).round() + zero).clamp(0, steps) - zero) * scale


@exercise
def check_zero_point(function: Answer) -> None:
    """`my_shifted(x)`: the numbers as 256 codes with a zero point leave them."""
    for i, (low, high) in enumerate([(-0.5, 2.1), (-3.0, 0.7), (-0.01, 6.0)]):
        x = torch.linspace(0, 1, 41 + i) ** 1.3 * (high - low) + low
        x[7] = 0.0
        case = f"numbers from {low} to {high}"
        low_, high_ = x.min(), x.max()
        right, largest = _shifted(x, low_, high_), x.abs().max()
        found = need_tensor(function(x.clone()), tuple(x.shape))
        need(found.isfinite().all(), f"{case}: something is not finite")
        scale = (high_ - low_) / 255
        near = x / scale + (-low_ / scale).round()
        codes = near.round().clamp(0, 255)
        symmetric = (x / largest * TOP).round() / TOP * largest
        raw = ((x - low_) / scale).round() * scale + low_
        mistakes = [
            (codes, "these are the codes: take off the zero point, times the scale"),
            (codes * scale, "take off the zero point before you multiply"),
            (symmetric, "that is symmetric: the scale is (largest - smallest) / 255"),
            (raw, "0 must stay 0: round the zero point, -smallest / scale, by itself"),
            (_shifted(x, low_, high_, 256), "256 codes have 255 steps between them"),
            (_shifted(x, low_, high_, TOP), "256 codes have 255 steps, not 127"),
            (((near).floor() - near.round() + codes) * scale, "rounded down"),
            (x, "nothing is rounded: codes are whole numbers"),
        ]
        # In steps, so that a mistake of one shows for large and small numbers alike.
        steps = [(wrong / scale, message) for wrong, message in mistakes]
        compare(found / scale, right / scale, steps, f"in steps, for {case}", 1e-3)


def _rows(weight: Tensor, top: int = TOP) -> Tensor:
    scale = weight.abs().amax(1, keepdim=True) / top
    return (weight / scale).round() * scale


@exercise
def check_rounded_rows(function: Answer) -> None:
    """`my_rounded(weight)`: each row as its int8 codes and its own scale leave it."""
    for weight in [*matrices(0)][::-1]:  # the square one first: there columns run
        scale = weight.abs().amax(1, keepdim=True) / TOP
        with errors_mean("does the scale fit the rows? keepdim=True helps: {error}"):
            answer = function(weight.clone())
        found, steps = need_tensor(answer, tuple(weight.shape)), weight / scale
        need(found.isfinite().all(), "something is not finite: what was divided?")
        whole = weight.abs().max() / TOP
        columns = weight.abs().amax(0) / TOP
        signed = weight.amax(1, keepdim=True) / TOP
        one = "one scale for the whole matrix: each row has its own"
        wrapped = ((steps.round() + TOP + 1) % 256 - TOP - 1) * scale
        mistakes = [
            ((weight / whole).round() * whole, one),
            ((weight / columns).round() * columns, "a scale for each column: rows"),
            (steps.round(), "these are the codes: times the scale"),
            (steps.trunc() * scale, "cut off, not rounded: .round()"),
            (steps.floor() * scale, "rounded down: .round() goes to the nearest"),
            (_rows(weight, 128), "divide by 127: 128 does not fit into int8"),
            (_rows(weight, 255), "divide by 127: codes go from -127 to 127"),
            (_rows(weight, 7), "that is four bits: divide by 127"),
            ((weight / signed).round() * signed, "take abs() before the largest"),
            (
                (weight / signed).round().clamp(-TOP, TOP) * signed,
                "take abs() before the largest",
            ),
            (wrapped, "out of int8, and wrapped"),
            (weight.round(), "divide by the scale before you round"),
            (weight, "nothing is rounded: codes are whole numbers"),
        ]
        units = [(wrong / scale, message) for wrong, message in mistakes]
        compare(
            found / scale, steps.round(), units, "in steps of the row's scale", 1e-3
        )


def _distilled(student: Tensor, teacher: Tensor) -> Tensor:
    return F.cross_entropy(student, teacher.softmax(-1))


@exercise
def check_distilled(function: Answer) -> None:
    """`my_distilled(student, teacher)`: mean cross entropy, from two sets of logits."""
    for labels, vocab in ((5, 7), (1, 3), (4, 4)):
        student = 2 * normal(labels, vocab, seed=labels)
        teacher = 2 * normal(labels, vocab, seed=labels + 9)
        with errors_mean("the shapes do not fit: {error}"):
            found = need_number(function(student, teacher))
        right = _distilled(student, teacher)
        p = teacher.softmax(-1)
        entropy = -(p * p.log()).sum(-1).mean()
        mistakes = [
            (F.cross_entropy(student, teacher.argmax(-1)), "that asks for the teacher's"
             " likeliest token alone: use all its probabilities"),
            (_distilled(teacher, student), "turned around: the teacher's probabilities,"
             " the student's logarithm"),
            (right - entropy, "that is the KL divergence: without the entropy"),
            (F.cross_entropy(student, teacher), "softmax of the teacher is missing"),
            (-(p * student).sum(-1).mean(), "log_softmax of the student is missing"),
            (-(p * student.softmax(-1)).sum(-1).mean(), "the logarithm is missing"),
            (-right, "the sign: a loss is positive"),
            (right / vocab, "the mean over labels, the sum over the vocabulary"),
            (right * labels, "the mean over labels, not the sum"),
            ((p - student.softmax(-1)).square().mean(), "that is the squared error"),
        ]  # fmt: skip
        values = [(value.item(), message) for value, message in mistakes]
        compare(found, right.item(), values, f"{labels} labels, {vocab} tokens")
    need_gradient(function, _distilled, student, teacher, first=1)


def _grouped(weight: Tensor, size: int, top: int = 7) -> Tensor:
    return _rows(weight.reshape(-1, size), top).view_as(weight)


@exercise
def check_four_bits(function: Answer) -> None:
    """`my_four_bits(weight, size)`: four bits, a scale for each `size` of a row."""
    for rows, columns, size in ((5, 12, 3), (8, 8, 4), (3, 14, 7)):
        weight = normal(rows, columns, seed=columns)
        weight *= 4.0 ** (torch.arange(rows * columns).view(rows, columns) // size % 3)
        with errors_mean("the shapes do not fit: {error}"):
            answer = function(weight.clone(), size)
        found = need_tensor(answer, tuple(weight.shape))
        need(found.isfinite().all(), "something is not finite: what was divided?")
        parts = weight.reshape(-1, size)
        scale = (parts.abs().amax(1, keepdim=True) / 7).expand_as(parts)
        scale = scale.reshape(weight.shape)
        whole = weight.abs().max() / 7
        mistakes = [
            (_rows(weight, 7), "one scale for the whole row: each group has its own"),
            ((weight / whole).round() * whole, "one scale for the whole matrix"),
            (_grouped(weight, size, 127), "that is eight bits: divide by 7"),
            (_grouped(weight, size, 8), "divide by 7: codes go from -7 to 7"),
            (_grouped(weight, size, 15), "divide by 7: codes go from -7 to 7"),
            (_grouped(weight, columns // size), "`size` is how many share a scale, "
             "not how many groups a row has"),
            ((weight / scale).round(), "these are the codes: times the scale"),
            ((weight / scale).trunc() * scale, "cut off, not rounded: .round()"),
            (weight, "nothing is rounded: codes are whole numbers"),
        ]  # fmt: skip
        units = [(wrong / scale, message) for wrong, message in mistakes]
        case = f"{rows} rows of {columns}, {size} to a scale"
        compare(found / scale, (weight / scale).round(), units, case, 1e-3)


def _bfloat16(x: Tensor, digits: int = 8) -> Tensor:
    mantissa, exponent = torch.frexp(x)
    return torch.ldexp((mantissa * 2**digits).round() / 2**digits, exponent)


@exercise
def check_bfloat16(function: Answer) -> None:
    """`my_bfloat16(x)`: the nearest number of eight binary digits, still float32."""
    for seed in (0, 1):
        x = normal(6, 7, seed=seed) * 10.0 ** torch.arange(-2, 5)
        x[0, :4] = torch.tensor([0.0, 1.0, 257.0, 259.0])  # two are ties: to even
        found = need_tensor(function(x.clone()), tuple(x.shape))
        need(found.isfinite().all(), "something is not finite: what of 0?")
        right = x.bfloat16().float()
        mantissa, exponent = torch.frexp(x)
        units = torch.ldexp(torch.ones_like(x), exponent - 8)  # one in the last digit
        cut = torch.ldexp((mantissa * 256).trunc() / 256, exponent)
        away = (mantissa.abs() * 256 + 0.5).floor() / 256 * mantissa.sign()
        seven = "that is seven digits: the first is not stored, but counts"
        mistakes = [
            (_bfloat16(x, 7), seven),
            (_bfloat16(x, 9), "that is nine digits: one too many"),
            (_bfloat16(x, 11), "that is float16's eleven digits"),
            (cut, "cut off, not rounded: .round()"),
            (torch.ldexp(away, exponent), "a tie goes to the even one: .round()"),
            ((x * 256).round() / 256, "the digits count from the first one of each "
             "number, not from the point"),
            (x, "nothing is rounded"),
        ]  # fmt: skip
        steps = [(wrong / units, message) for wrong, message in mistakes]
        compare(found / units, right / units, steps, "in units of the last digit", 1e-4)
