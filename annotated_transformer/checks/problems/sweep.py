"""A sweep over learning rates, problem 2.5."""

import math
from functools import partial

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
    seeded,
    verdict,
)

__all__ = ["check_best_rate", "check_sweep"]


def check_sweep(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`sweep(train, rates, seeds)`: a dict from rate to (mean, spread) over the seeds.

    `train(rate, seed)` gives the losses of one run; a run counts with the mean of its
    last ten. Parts: "mean", "spread" (standard deviation of a sample).
    """
    mean, spread = partial(_swept, part="mean"), partial(_swept, part="spread")
    return verdict(function, part, seed, mean=mean, spread=spread)


def curve(rate: float, run: int, seed: int) -> list[float]:
    """The losses of a made-up run: they fall, with noise, to a level of its own."""
    g = seeded(int(run * 1000 + rate * 10_000) + seed)
    noise = torch.randn(40, generator=g) * 0.3
    level = 1 + torch.rand(1, generator=g)
    return (level + 3 * torch.exp(-torch.arange(40.0) * rate * 10) + noise).tolist()


def wrong_means(curves: Tensor) -> Mistakes:
    """Numbers that are not the mean over the runs of their last ten losses."""
    ends = curves[:, -10:].mean(1)
    noisy = "the last loss alone is noisy: take the mean of the last ten"
    last = "off by one: the last TEN losses"
    yield curves[:, -1].mean(), noisy
    yield curves.mean(), "the whole curve: only its last ten losses count"
    yield curves[:, :10].mean(), "these are the first ten losses: the last ten count"
    yield curves[:, 0].mean(), "that is the loss before learning: take the last ten"
    yield curves.min(1).values.mean(), "the lowest loss is luck: take the last ten"
    yield curves[:, -10:].sum(1).mean(), "a sum of ten losses: take their mean"
    yield ends.sum(), "that is a sum over the seeds: take the mean"
    yield ends.min(), "the best seed alone: that is luck. Take the mean"
    yield ends.max(), "the worst seed alone: take the mean"
    for middle in (ends.median(), ends.sort().values[len(ends) // 2]):
        yield middle, "that is the median: take the mean"
    yield ends[-1], "the last seed alone: was the list emptied for each?"
    yield ends[0], "the first seed alone: is the return inside the loop?"
    yield curves[:, -9:].mean(), last
    yield curves[:, -11:].mean(), last
    yield curves[:, -10].mean(), "[-10] is one loss: the last ten are [-10:]"
    yield curves[:, 10:].mean(), "[10:] leaves out the first ten: take the last, [-10:]"
    yield curves[:, -11:-1].mean(), f"{last}, the very last included"


def wrong_spreads(curves: Tensor) -> Mistakes:
    """Numbers that are not the standard deviation between the runs."""
    n, last = len(curves), curves[:, -10:]
    ends = last.mean(1)
    sample = f"you divided by {n}: a sample of {n} seeds wants {n - 1}"
    root = "that is the variance, divided by n: root, and n - 1"
    error = "that is the error of the mean: the spread itself is wanted"
    between = "that is the noise inside a run: the spread is between seeds"
    ten = "that is of the last losses: take each run's mean of ten first"
    yield ends.std(correction=0), sample
    yield ends.var(), "that is the variance: take its root"
    yield ends.var(correction=0), root
    yield ends.std() / math.sqrt(n), error
    yield ends.std(correction=0) / math.sqrt(n), error
    yield ends.max() - ends.min(), "that is the range: take the standard deviation"
    absolute = "that is the mean distance: take the root of the mean square"
    yield (ends - ends.mean()).abs().mean(), absolute
    yield last.std(), "that mixes steps with seeds: one number a run first"
    yield last.std(correction=0), "that mixes steps with seeds: one number a run first"
    yield last.std(1).mean(), between
    yield last.std(1, correction=0).mean(), between
    yield curves[:, -1].std(), ten
    yield curves.mean(1).std(), "that is of whole curves: take the last ten losses"


def runs_of(function: Answer, seed: int, rates: list[float], seeds: list[int]) -> dict:
    """The dict that it returns, once it has trained each pair once."""
    calls: list[tuple[float, int]] = []

    def train(rate: float, run: int) -> list[float]:
        calls.append((rate, run))
        return curve(rate, run, seed)

    found = function.let(train, list(rates), list(seeds))
    need(found is not None and found is not ..., NOT_DONE)
    need(isinstance(found, dict), f"return a dict, not a {type(found).__name__}")
    wanted = {(rate, run) for rate in rates for run in seeds}
    one = {(rate, seeds[0]) for rate in rates}
    need(set(calls) != one, "one seed is no evidence: train with every seed")
    others = "train got other rates or seeds: use the arguments, in the order"
    need(set(calls) <= wanted, f"{others} (rate, seed)")
    n, runs = (
        len(set(calls)),
        f"{len(wanted)} runs are wanted, each rate with each seed",
    )
    need(set(calls) == wanted, f"{runs}, not {n}")
    need(len(calls) == len(wanted), f"{len(calls)} runs: train each pair once only")
    keys = f"the keys should be the rates {rates}, not {list(found)}"
    need(set(found) == set(rates), keys)
    return found


def _swept(function: Answer, seed: int, *, part: str) -> None:
    rates = [0.001, 0.01, 0.1] if seed == 0 else [0.002 + 0.001 * (seed % 3), 0.05]
    for seeds in ([seed, seed + 1, seed + 2, seed + 3], [seed, seed + 4, seed + 7]):
        found = runs_of(function, seed, rates, seeds)
        for rate in rates:
            pair, two = found[rate], "each rate has two numbers: (mean, spread)"
            need(isinstance(pair, tuple | list) and len(pair) == 2, two)
            curves = torch.tensor([curve(rate, run, seed) for run in seeds])
            ends = curves[:, -10:].mean(1)
            wrong = (wrong_means if part == "mean" else wrong_spreads)(curves)
            right = (ends.mean() if part == "mean" else ends.std()).item()
            number = need_number(pair[part == "spread"])
            other = need_number(pair[part == "mean"])
            swapped = "mean and spread are swapped: (mean, spread)"
            need(abs(other - right) > 1e-4 or abs(number - right) < 1e-4, swapped)
            case = f"the {part} for rate {rate} and {len(seeds)} seeds"
            compare(number, right, wrong, case)


def check_best_rate(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`best_rate(results)`: the rate of the lowest mean; a broken run never wins."""
    return verdict(function, part, seed, best=_best)


def _best(function: Answer, seed: int) -> None:
    low = 1.0 + 0.1 * (seed % 9)
    plain = {0.1: (low + 2, 0.1), 0.01: (low, 0.3), 0.001: (low + 1, 0.01)}
    answer = function(plain)
    need(not isinstance(answer, tuple), "return the rate alone, not its numbers")
    small = "is it the smallest rate, or the smallest spread? The lowest mean wins"
    mistakes = (
        (low, "that is the loss: return its rate"),
        (0.1, "that is the HIGHEST loss: the lowest wins"),
        (0.001, small),
        (1, "that is its number in the list: return the rate"),
    )
    compare(answer, 0.01, mistakes, f"the best rate of {plain}", 1e-9)
    nan, inf = math.nan, math.inf
    broken = "a run that broke (NaN) won: no comparison with NaN is true, so min()"
    for results in (
        {1.0: (nan, nan), 0.1: (low, 0.1), 0.01: (low + 1, 0.1)},
        {0.01: (low + 1, 0.1), 0.1: (low, 0.1), 1.0: (nan, nan), 10.0: (inf, nan)},
    ):
        found = function(results)
        won = isinstance(found, float) and math.isnan(results.get(found, (0,))[0])
        need(not won, f"{broken} can't see it. Leave such rates out")
        compare(found, 0.1, hint=f"the best rate of {results}", tolerance=1e-9)
    negative = {0.1: (-1.0, 0.1), 0.01: (2.0, 0.1)}
    compare(function(negative), 0.1, hint="a loss may be below 0", tolerance=1e-9)
