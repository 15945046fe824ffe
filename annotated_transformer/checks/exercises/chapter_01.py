"""Checks of chapter 01, Why attention, and of what goes deeper."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.functional import jacobian

from annotated_transformer.attention import fused_attention
from annotated_transformer.checks.common import (
    Answer,
    Mistake,
    compare,
    exercise,
    need,
    need_gradient,
    need_number,
    need_tensor,
    normal,
    seeded,
)

__all__ = ["check_equal", "check_hub", "check_layers", "check_recurrent"]


def influence(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """How much output i hears of input j, as a matrix of norms."""
    return jacobian(layer, x).norm(dim=(1, 3))  # (n, d, n, d) to (n, n)


def random(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers in double precision: some signals get very small."""
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def near(n: int, r: int) -> Tensor:
    """Who is within a window of r words around each of n words."""
    place = torch.arange(n)
    return (place[:, None] - place).abs() <= r // 2  # True = may look


def recurrent(x: Tensor, W: Tensor, U: Tensor) -> Tensor:
    """The states after each word: tanh of the word and the state before."""
    state, states = torch.zeros_like(x[..., 0, :]), []  # nothing has been read yet
    for word in x.unbind(-2):
        state = torch.tanh(word @ W.T + state @ U.T)
        states.append(state)
    return torch.stack(states, -2)  # (*batch, n, d)


def _recurrent(x: Tensor, W: Tensor, U: Tensor, bend: Callable[..., Tensor]) -> Tensor:
    """Like `recurrent`; `bend` makes the next state of the two products."""
    state, states = torch.zeros_like(x[0]), []
    for word in x:
        state = bend(word @ W.T, state @ U.T)
        states.append(state)
    return torch.stack(states)


def _wrong(x: Tensor, W: Tensor, U: Tensor) -> list[tuple[Tensor, str]]:
    """What the usual mistakes make of these words, and their names."""
    zeros = torch.zeros_like(W)
    backwards = recurrent(x.flip(0), W, U)
    return [
        (recurrent(x, W, zeros), "the state before is not used"),
        (recurrent(x, zeros, U), "the word is not used"),
        (_recurrent(x, W, U, lambda w, s: w + s), "the tanh is missing"),
        (_recurrent(x, W, U, lambda w, s: w.tanh() + s), "tanh of the whole sum"),
        (recurrent(x, U, W), "W and U have changed places: W is for the word"),
        (recurrent(x, W.T, U.T), "with x as a row, W x is x @ W.T"),
        (recurrent(x, W.T, U), "W is transposed: as a row, W x is x @ W.T"),
        (recurrent(x, W, U.T), "U is transposed: as a row, U h is h @ U.T"),
        (backwards.flip(0), "it reads from the last word on"),
        (backwards, "it reads from the last word on"),
    ]


@exercise
def check_recurrent(function: Answer) -> None:
    """`my_recurrent(x, W, U)`: the states of a recurrent layer, (n, d)."""
    for n, d in ((4, 3), (1, 5), (7, 2), (40, 16)):
        x, W, U = normal(n, d, seed=1), normal(d, d, seed=2), normal(d, d, seed=3)
        W, U = W / d**0.5, U / d**0.5
        answer, right = function(x, W, U), recurrent(x, W, U)
        found = tuple(answer.shape) if isinstance(answer, Tensor) else ()
        one = "that is one state: return all n of them, as rows"
        need(found not in ((d,), (1, d)) or n == 1, one)
        need(not isinstance(answer, list), "return one tensor: torch.stack(states)")
        zero = "one row too many: the zeros before the first word are no output"
        need(found != (n + 1, d), zero)
        need_tensor(answer, (n, d))
        hint = "row 0 is tanh(W x), row 1 uses row 0"
        compare(answer, right, _wrong(x, W, U), hint)
        need_gradient(function, recurrent, x, W, U)


@exercise
def check_layers(function: Answer) -> None:
    """`my_layers(n, k)`: dilated layers until the last of n words hears the first."""
    cases = [(n, k) for n in range(2, 200) for k in (2, 3, 5)]
    answers = [need_number(function(n, k)) for n, k in cases]
    need(all(a == int(a) for a in answers), "round up: there is no half a layer")
    right = [next(layers for layers in range(9) if k**layers >= n) for n, k in cases]

    def every(formula: Callable[[int, int], float]) -> list[float]:
        return [formula(n, k) for n, k in cases]

    floor = every(lambda n, k: math.floor(math.log(n, k) + 1e-9))
    by_two = every(lambda n, k: math.ceil(math.log2(n)))
    both_ways = every(lambda n, k: math.ceil(math.log(2 * n - 1, k) - 1e-9))
    plain = every(lambda n, k: math.ceil((n - 1) / (k - 1)))
    power = "one too many when n is a power of k: 9 words, k = 3, need 2 layers"
    for wrong, message in (
        ([n + 1 for n in right], "one too many: 9 words and k = 3 need 2 layers"),
        (plain, "that is the plain stack: here each layer looks k times as far"),
        (floor, "rounded down: 10 words and k = 3 need 3 layers, not 2"),
        ([n + 1 for n in floor], power),
        (by_two, "is the base of the logarithm k?"),
        (both_ways, "that is for layers that look both ways: these look back only"),
    ):
        need(answers != wrong, message)
    off = [i for i in range(len(cases)) if answers[i] != right[i]]
    rounded = "wrong for 125 words, k = 5: log(125, 5) is a bit more than 3 to Python"
    need(not off or any(cases[i] != (125, 5) for i in off), rounded)
    for i in off:
        n, k = cases[i]
        raise Mistake(f"{n} words, k = {k}: {right[i]} layers, not {answers[i]:g}")
    alone = "n = 1: one word has heard itself before the first layer, so 0"
    need(function(1, 3) == 0, alone)
    huge = "right up to 199 words, but not for 3**40 and 3**40 + 1: avoid logarithms"
    need((function(3**40, 3), function(3**40 + 1, 3)) == (40, 41), huge)


@exercise
def check_equal(function: Answer) -> None:
    """`my_equal(c, d)`: the length n at which attention costs as much."""
    cases = [(c, d) for c in (6, 8, 9, 15, 7.5, 5) for d in (16, 64, 512, 2049)]
    answers = [need_number(function(c, d)) for c, d in cases]
    formulas: list[tuple[Callable[[float, int], float], str]] = [
        (lambda c, d: d, "n = d compares Table 1's terms: put in the constants"),
        (lambda c, d: c * d / 2, "the four projections are missing"),
        (lambda c, d: c * d, "projections and the 2 of 2 n² d are missing"),
        (lambda c, d: (c - 4) * d, "scores and mix: there are two products of n² d"),
        (lambda c, d: (c - 3) * d / 2, "three projections? The output has one, too"),
        (lambda c, d: (c - 4) / 2, "the width d is lost: was the division by n d?"),
        (lambda c, d: 2 * d / (c - 4), "upside down: a costlier rival crosses later"),
        (lambda c, d: (4 - c) * d / 2, "a sign is wrong: the GRU crosses at n = d"),
    ]
    mistakes = [([f(c, d) for c, d in cases], message) for f, message in formulas]
    right = [(c - 4) * d / 2 for c, d in cases]
    whole = "n may lie between two whole lengths: don't round"
    mistakes += [([f(n) for n in right], whole) for f in (math.ceil, math.floor, round)]
    names = [f"c = {c}, d = {d}" for c, d in cases]
    compare(answers, right, mistakes, tolerance=1e-9, cases=names)
    cheap = "c = 2: attention costs more at every length, so 0, and no negative length"
    need(need_number(function(2, 64)) >= 0, cheap)
    for c in (2, 4):
        compare(need_number(function(c, 64)), 0.0, hint=f"c = {c}")


@exercise
def check_hub(function: Answer) -> None:
    """`my_mask(n)`: a sparse mask that connects all words in two layers."""
    for n in (40, 7, 101):
        _hub(function, n)
    for n in (1, 2, 3, 5):  # here full attention has few looks, too
        mask = need_tensor(function(n), (n, n), torch.bool)
        need(mask[near(n, 3)].all(), f"n = {n}: the windows of three are not in it")
        two = mask.float() @ mask.float()
        need(two.all(), f"n = {n}: not all are connected within two layers")


def _hub(function: Answer, n: int) -> None:
    mask = need_tensor(function(n), (n, n), torch.bool)
    window = near(n, 3)
    full = f"that is full attention: {n * n} looks, and {5 * n} are allowed"
    need(not mask.all(), full)
    need((mask & window).any(), "upside down? True means: may look")
    causal = torch.equal(mask, mask.tril())
    need(not causal, "that looks back only: nobody can hear a later word")
    need(mask.diagonal().all(), "a word hears itself, too: the diagonal is missing")
    need(mask[window].all(), "the windows of three are not in it")
    alone = "windows alone: only words up to two positions apart are connected"
    need(not torch.equal(mask, window), alone)

    def two_layers(x: Tensor) -> Tensor:
        x = fused_attention(x, x, x, mask)
        return fused_attention(x, x, x, mask)

    heard = influence(two_layers, random(n, 4)) > 0
    if not heard.all():
        hears_all, heard_by_all = mask.all(1).any(), mask.all(0).any()
        deaf = "all hear the hub, but the hub hears only its neighbors"
        need(hears_all or not heard_by_all, deaf)
        need(heard_by_all or not hears_all, "the hub hears all, but nobody hears it")
        i, j = (~heard).nonzero()[0].tolist()
        raise Mistake(f"output {i} does not hear word {j} within two layers")
    looks = int(mask.sum())
    need(looks <= 5 * n, f"connected, but with {looks} looks: {5 * n} are enough")
