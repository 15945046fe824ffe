"""A sweep over learning rates, problem 2.5."""

import math

import torch

from annotated_transformer.checks.common import (
    Answer,
    Function,
    Mistake,
    ask,
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
    return verdict(
        function,
        part,
        seed,
        mean=lambda f, seed: _swept(f, seed, "mean"),
        spread=lambda f, seed: _swept(f, seed, "spread"),
    )


def _swept(function: Answer, seed: int, part: str) -> None:
    rates = [0.001, 0.01, 0.1] if seed == 0 else [0.002 + 0.001 * (seed % 3), 0.05]
    seeds = [0, 1, 2, 3] if seed == 0 else [seed, seed + 4, seed + 7]
    calls: list[tuple[float, int]] = []

    def curve(rate: float, run: int) -> list[float]:
        g = seeded(int(run * 1000 + rate * 10_000) + seed)
        noise = torch.randn(40, generator=g) * 0.3
        level = 1 + torch.rand(1, generator=g)
        return (level + 3 * torch.exp(-torch.arange(40.0) * rate * 10) + noise).tolist()

    def train(rate: float, run: int) -> list[float]:
        calls.append((rate, run))
        return curve(rate, run)

    found = function.let(train, list(rates), list(seeds))
    if found is None or found is ...:
        raise Mistake("not done yet")
    need(isinstance(found, dict), f"return a dict, not a {type(found).__name__}")
    wanted = {(rate, run) for rate in rates for run in seeds}
    need(
        set(calls) != {(rate, seeds[0]) for rate in rates},
        "one seed is no evidence: train with every seed",
    )
    need(
        set(calls) <= wanted,
        "train got other rates or seeds: use the arguments, in the order (rate, seed)",
    )
    need(
        set(calls) == wanted,
        f"{len(wanted)} runs are wanted, each rate with each seed, "
        f"not {len(set(calls))}",
    )
    need(len(calls) == len(wanted), f"{len(calls)} runs: train each pair once only")
    need(
        set(found) == set(rates),
        f"the keys should be the rates {rates}, not {list(found)}",
    )
    for rate in rates:
        pair = found[rate]
        need(
            isinstance(pair, tuple | list) and len(pair) == 2,
            "each rate has two numbers: (mean, spread)",
        )
        curves = torch.tensor([curve(rate, run) for run in seeds])
        ends = curves[:, -10:].mean(1)
        if part == "mean":
            number = need_number(pair[0])
            compare(
                number,
                ends.mean().item(),
                (
                    (
                        curves[:, -1].mean().item(),
                        "the last loss alone is noisy: take the mean of the last ten",
                    ),
                    (
                        curves.mean().item(),
                        "the whole curve: only its last ten losses count",
                    ),
                    (
                        curves[:, :10].mean().item(),
                        "these are the first ten losses: the last ten count",
                    ),
                    (
                        curves[:, 0].mean().item(),
                        "that is the loss before learning: take the last ten",
                    ),
                    (ends.sum().item(), "that is a sum over the seeds: take the mean"),
                    (
                        ends.min().item(),
                        "the best seed alone: that is luck. Take the mean",
                    ),
                    (
                        ends[-1].item(),
                        "the last seed alone: was the list emptied for each?",
                    ),
                    (curves[:, -9:].mean().item(), "off by one: the last TEN losses"),
                    (
                        curves[:, -11:-1].mean().item(),
                        "off by one: the last TEN losses, the very last included",
                    ),
                ),
                f"rate {rate}: the mean is {ends.mean().item():.4f}, not {number:.4f}",
            )
        else:
            number = need_number(pair[1])
            n = len(seeds)
            last = curves[:, -10:]
            compare(
                number,
                ends.std().item(),
                (
                    (
                        ends.std(correction=0).item(),
                        f"you divided by {n}: a sample of {n} seeds wants {n - 1}",
                    ),
                    (ends.var().item(), "that is the variance: take its root"),
                    (
                        ends.var(correction=0).item(),
                        "that is the variance, divided by n: root, and n - 1",
                    ),
                    (
                        (ends.std() / math.sqrt(n)).item(),
                        "that is the error of the mean: the spread itself is wanted",
                    ),
                    (
                        (ends.max() - ends.min()).item(),
                        "that is the range: take the standard deviation",
                    ),
                    (
                        last.std().item(),
                        "that mixes steps with seeds: one number a run first",
                    ),
                    (
                        last.std(1).mean().item(),
                        "that is the noise inside a run: the spread is between seeds",
                    ),
                    (
                        curves[:, -1].std().item(),
                        "that is of the last losses: take each run's mean of ten first",
                    ),
                ),
                f"rate {rate}: the spread is {ends.std().item():.4f}, not {number:.4f}",
            )


def check_best_rate(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`best_rate(results)`: the rate of the lowest mean; a broken run never wins."""
    return verdict(function, part, seed, best=_best)


def _best(function: Answer, seed: int) -> None:
    low = 1.0 + 0.1 * (seed % 9)
    plain = {0.1: (low + 2, 0.1), 0.01: (low, 0.3), 0.001: (low + 1, 0.01)}
    answer = ask(function, plain)
    if isinstance(answer, tuple):
        raise Mistake("return the rate alone, not its numbers")
    need(answer != low, "that is the loss: return its rate")
    need(answer != 0.1, "that is the HIGHEST loss: the lowest wins")
    need(
        answer != 0.001,
        "is it the smallest rate, or the smallest spread? The lowest mean wins",
    )
    need(answer == 0.01, f"the best rate of {plain} is 0.01, not {answer}")
    nan, inf = math.nan, math.inf
    for broken in (
        {1.0: (nan, nan), 0.1: (low, 0.1), 0.01: (low + 1, 0.1)},
        {0.01: (low + 1, 0.1), 0.1: (low, 0.1), 1.0: (nan, nan), 10.0: (inf, nan)},
    ):
        if ask(function, broken) != 0.1:
            raise Mistake(
                "a run that broke (NaN) won: no comparison with NaN is true, so min() "
                "can't see it. Leave such rates out"
            )
