"""Checks of chapter 20, Speed and scale: one for each exercise."""

import torch

from annotated_transformer.checks.common import (
    Answer,
    compare,
    exercise,
    need_number,
    need_tensor,
    normal,
)
from annotated_transformer.config import TransformerConfig
from annotated_transformer.speed import pair_flops

__all__ = ["check_combine", "check_exponent", "check_flops", "check_roofline"]


def _right(src: int, tgt: int, d: int, d_ff: int, n: int, vocab: int) -> int:
    """The operations of one pass."""
    c = TransformerConfig(n_heads=1, d_model=d, d_ff=d_ff, n_layers=n, vocab_size=vocab)
    return pair_flops(c, src, tgt)


def _flops_mistakes(
    src: int, tgt: int, d: int, d_ff: int, n: int, vocab: int
) -> list[tuple[float, str]]:
    """What comes out by one mistake each."""
    right = _right(src, tgt, d, d_ff, n, vocab)
    output, scores = 2 * tgt * d * vocab, 4 * n * d * (src**2 + tgt**2 + src * tgt)
    cross = 4 * n * d * (tgt * d + src * d + tgt * src)
    wide = 4 * n * (src + tgt) * d * d_ff
    return [
        (right / 2, "a multiplication with its addition counts as 2"),
        (3 * right, "the forward pass alone: the backward pass comes later"),
        (right - output, "the output layer is missing: tgt x d_model x vocab_size"),
        (right + (n - 1) * output, "the output layer is there once, not in each layer"),
        (right + 2 * (src - tgt) * d * vocab, "the output layer scores target tokens"),
        (right - scores, "the scores and the mixing of the values are products, too"),
        (right - scores / 2, "scores, and then the mixing of the values: two products"),
        (right - cross, "the decoder has a second attention, over the source"),
        (
            right + 4 * n * d**2 * (tgt - src),
            "keys and values of cross-attention come from the source: src tokens",
        ),
        (right - wide / 2, "a feed-forward layer has two matrices"),
        (right - wide, "the feed-forward layers are missing"),
        (
            right + output - 2 * src * d * vocab,
            "the output layer scores target tokens",
        ),
    ]


@exercise
def check_flops(function: Answer) -> None:
    """`my_flops(src, tgt, d_model, d_ff, n_layers, vocab_size)`, one forward pass."""
    for case in ((3, 5, 4, 6, 2, 11), (7, 2, 8, 32, 3, 50), (1, 1, 2, 2, 1, 5)):
        src, tgt, d, d_ff, n, vocab = case
        right = _right(*case)
        named = (
            f"src {src}, tgt {tgt}, d_model {d}, d_ff {d_ff}, {n} layers, {vocab} words"
        )
        mistakes = [] if case == (1, 1, 2, 2, 1, 5) else _flops_mistakes(*case)
        compare(need_number(function(*case)), float(right), mistakes, named)


@exercise
def check_combine(function: Answer) -> None:
    """`my_combine(gradients, tokens)`: of each process's mean loss, and its labels."""
    for tokens in ([3, 1], [5, 7, 2], [4, 0, 9]):
        gradients = [normal(2, 3, seed=i) for i in range(len(tokens))]
        stacked, counts = torch.stack(gradients), torch.tensor(tokens).float()
        summed = (stacked * counts[:, None, None]).sum(0)
        upside_down = stacked / counts.clamp(min=1)[:, None, None]
        wrong = [
            (stacked.mean(0), "a process with few labels counts as much as the others"),
            (stacked.sum(0), "a sum of means is no mean: weigh, then divide"),
            (summed, "divide by the labels of all processes"),
            (summed / len(tokens), "divide by the labels, not by the processes"),
            (upside_down.sum(0), "many labels should count for more, not for less"),
            (stacked.sum(0) / counts.sum(), "weigh each gradient by its own labels"),
        ]
        found = need_tensor(function(gradients, tokens), (2, 3))
        compare(found, summed / counts.sum(), wrong, f"{tokens} labels")


@exercise
def check_exponent(function: Answer) -> None:
    """`my_exponent(budgets, sizes)`: the slope of the nearest line in log-log."""
    budgets = torch.tensor([1e2, 1e3, 3e3, 1e5])
    for values in ([2.0, 7.0, 10.0, 70.0], [5.0, 6.0, 30.0, 40.0]):
        sizes = torch.tensor(values)
        x, y = budgets.log(), sizes.log()

        def slope(x: torch.Tensor, y: torch.Tensor) -> float:
            centered = x - x.mean()
            return ((y * centered).sum() / centered.square().sum()).item()

        steps = y.diff() / x.diff()
        wrong = [
            (slope(y, x), "the wrong way around: sizes grow with budgets"),
            (slope(budgets, sizes), "a power is a line in log-log: take logarithms"),
            (slope(budgets, y), "take the logarithm of the budgets, too"),
            (slope(x, sizes), "take the logarithm of the sizes, too"),
            (((y[-1] - y[0]) / (x[-1] - x[0])).item(), "use all points, not two"),
            (steps.mean().item(), "steps of unequal width: fit one line to all points"),
            (
                ((x * y).sum() / x.square().sum()).item(),
                "the line need not pass through the origin: subtract the means",
            ),
        ]
        found = need_number(function(budgets, sizes))
        compare(found, slope(x, y), wrong, f"{budgets.tolist()} and {values}")


@exercise
def check_roofline(function: Answer) -> None:
    """`my_seconds(operations, n_bytes, peak, bandwidth)`: the larger of two times."""
    for case in ((600.0, 8.0, 100.0, 4.0), (60.0, 36.0, 30.0, 4.0)):
        operations, n_bytes, peak, bandwidth = case
        products, memory = operations / peak, n_bytes / bandwidth
        intensity, named = operations / n_bytes, "{:g} operations, {:g} bytes"
        wrong = [
            (min(products, memory), "it has to wait for the slower of the two"),
            (products + memory, "both go on at once: the larger counts, not the sum"),
            (min(peak, intensity * bandwidth), "that is its speed: return seconds"),
            (max(peak / operations, bandwidth / n_bytes), "seconds: work over speed"),
        ]
        found = need_number(function(*case))
        compare(found, max(products, memory), wrong, named.format(*case))
