"""Checks of chapter 19, Variations: one for each exercise."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from annotated_transformer.checks.common import (
    Answer,
    compare,
    exercise,
    need,
    need_tensor,
    normal,
    plain,
)

__all__ = ["check_fair", "check_gate", "check_seeds"]

T = 0.95 * math.sqrt(2 / (1 - 0.95**2))  # Student's t for 3 differences: 4.303


def _interval(differences: Tensor, *, t: float = T, correction: int = 1) -> list[float]:
    half = t * differences.std(correction=correction) / math.sqrt(len(differences))
    mean = differences.mean()
    return [mean.item(), (mean - half).item(), (mean + half).item()]


def _unpaired(row: Tensor, base: Tensor) -> list[float]:
    """What comes out when the seeds' own ups and downs stay in."""
    half = T * math.sqrt((row.var() + base.var()).item() / len(row))
    mean = (row.mean() - base.mean()).item()
    return [mean, mean - half, mean + half]


def _wrong_intervals(row: Tensor, base: Tensor) -> list[tuple[Any, str]]:
    """What comes out by one mistake each."""
    d = row - base
    mean, low, high = _interval(d)
    half, root = mean - low, math.sqrt(len(d))
    fewer = "divide by n - 1: correction=1 (three numbers know little of their spread)"
    return [
        (_interval(-d), "the wrong way around: row - base, so that worse is above 0"),
        (_interval(d, t=1.96), "1.96 is for many numbers: for three, t is 4.303"),
        (_interval(d, t=1), "the interval is t times as wide on each side"),
        (_interval(d, t=T * root), "a mean of n is surer than one: divide by sqrt(n)"),
        (_interval(d, t=T / root), "divide by sqrt(n), not by n"),
        (_interval(d, correction=0), fewer),
        (_unpaired(row, base), "subtract seed by seed first, then take the spread"),
        (_interval(row), "that is the row's own mean: subtract the base's"),
        (_interval(row / base - 1), "a difference, not a ratio"),
        ([mean, high, low], "the lower end comes before the upper one"),
        ([low, mean, high], "the mean comes first, then the two ends"),
        ([low, high], "return three numbers: the mean comes first"),
        ([mean, half], "return both ends of the interval: mean - half, mean + half"),
        ([mean, half, half], "return both ends: mean - half, mean + half"),
    ]


def _numbers(answer: Any) -> list[float]:
    """The answer as plain numbers."""
    several = isinstance(answer, list | tuple | Tensor) and len(answer)
    need(several, "return three numbers: mean, lower end, upper end")
    return [float(plain(number)) for number in answer]


@exercise
def check_seeds(function: Answer) -> None:
    """`my_paired(row, base)`: mean, low, high of the differences; seeds in order."""
    for scale, seed in ((0.02, 1), (1.0, 2), (0.2, 3)):
        base = 0.4 + 0.1 * normal(3, seed=seed)
        row = base + 0.05 + scale * normal(3, seed=seed + 10)
        found, right = _numbers(function(row, base)), _interval(row - base)
        compare(found, right, _wrong_intervals(row, base))


def _case(seed: int) -> tuple[Tensor, Tensor]:
    """Losses of 5 rates: 2 seeds on the validation split, 3 fresh ones on the test's.

    The validation split, each single seed of it, and the test split differ in the best.
    """
    tuning = 2 + 0.1 * normal(5, 2, seed=seed)
    fresh = 2.1 + 0.1 * normal(5, 3, seed=seed + 50)
    best, lucky, better = torch.randperm(
        5, generator=torch.Generator().manual_seed(seed)
    )[:3].tolist()
    tuning[best] -= 0.6
    tuning[lucky] += torch.tensor([-1.5, 1.5])
    fresh[better] -= 1.0
    return tuning, fresh


@exercise
def check_fair(function: Answer) -> None:
    """`my_fair(tuning, fresh)`: the fresh seeds' mean at the rate that tuning chose."""
    for seed in (1, 2, 3):
        tuning, fresh = _case(seed)
        means, mean = tuning.mean(1), fresh.mean(1)
        cheat = "the test split chose the rate: tuning has to choose"
        lucky = int(tuning.amin(1).argmin())
        wrong = [
            (mean.min(), cheat),
            (fresh.min(), "that is the best single run of all: a mean, at one rate"),
            (mean[lucky], "the best single run chose: the mean over the seeds does"),
            (tuning.min(), "tuning chooses, the fresh seeds report"),
            (means.min(), "tuning chooses, the fresh seeds report"),
            (mean[means.argmax()], "a loss is good when it is low"),
            (mean.mean(), "one rate is chosen, not the mean over all of them"),
            (fresh[means.argmin()].min(), "the mean of the fresh seeds, not the best"),
            (fresh[means.argmin()].median(), "the mean of the fresh seeds"),
            (means.argmin().float(), "that is the rate's number: look up its losses"),
        ]
        answer = function(tuning, fresh)
        need(not isinstance(answer, tuple | list), "return one number")
        if isinstance(answer, Tensor):
            need(answer.numel() == 1, "return one number: the mean over fresh seeds")
        right = mean[means.argmin()].item()
        compare(float(answer), right, [(w.item(), what) for w, what in wrong])


@exercise
def check_gate(function: Answer) -> None:
    """`my_gated(x, gate, value, narrow)`: a feed-forward layer with a GELU gate."""
    for shape in ((4, 3), (2, 5, 3)):
        x, gate, value = normal(*shape), normal(3, 7, seed=1), normal(3, 7, seed=2)
        narrow, hidden = normal(7, 3, seed=3), F.gelu(x @ gate)
        wrong = [
            (
                F.gelu(x @ value) * (x @ gate),
                "the gate goes through GELU, not the value",
            ),
            (F.gelu(x @ gate * (x @ value)), "GELU comes before the product"),
            (hidden * F.gelu(x @ value), "only the gate goes through GELU"),
            (x @ gate * (x @ value), "the gate goes through GELU"),
            (hidden + x @ value, "the gate multiplies, it doesn't add"),
            ((x @ gate).relu() * (x @ value), "GELU, not ReLU"),
            ((x @ gate).sigmoid() * (x @ value), "GELU, not a sigmoid"),
            (F.silu(x @ gate) * (x @ value), "GELU, not SiLU"),
            (hidden, "the value is missing: that is a layer without a gate"),
        ]
        right = hidden * (x @ value)
        answer = function(x, gate, value, narrow)
        need(
            not isinstance(answer, Tensor) or answer.shape != right.shape,
            "narrow it at the end: the width is that of x again",
        )
        found = need_tensor(answer, tuple(x.shape))
        table = [(hid @ narrow, what) for hid, what in wrong]
        compare(found, right @ narrow, table, "gelu(x W) * (x V), then narrow")
