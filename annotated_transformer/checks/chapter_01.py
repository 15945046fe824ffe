"""Checks of chapter 01, Why attention: one for each exercise."""

import math
from typing import Any

import torch
from torch.autograd.functional import jacobian

from annotated_transformer.attention import fused_attention
from annotated_transformer.checks.common import Function, seeded


def influence(layer: Any, x: Any) -> Any:
    """How much output i hears of input j, as a matrix of norms."""
    return jacobian(layer, x).norm(dim=(1, 3))  # (n, d, n, d) to (n, n)


def random(*shape: Any, seed: Any = 0) -> Any:
    """Normal numbers in double precision: some signals get very small."""
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def near(n: Any, r: Any) -> Any:
    """Who is within a window of r words around each of n words."""
    place = torch.arange(n)
    return (place[:, None] - place).abs() <= r // 2  # True = may look


def check_layers(function: Function) -> str:
    """`my_layers(n, k)`: dilated layers until the last of n words hears the first."""
    cases = [(n, k) for n in range(2, 200) for k in (2, 3, 5)]
    answers = [function(n, k) for n, k in cases]
    if any(answer is None for answer in answers):
        return "not done yet: it returns None" if any(answers) else "not done yet"
    if any(answer != int(answer) for answer in answers):
        return "round up: there is no half a layer"
    right = [next(layers for layers in range(9) if k**layers >= n) for n, k in cases]

    def is_always(formula: Any) -> Any:
        return answers == [formula(n, k) for n, k in cases]

    if answers == [layers + 1 for layers in right]:
        return "one too many: 9 words and k = 3 need 2 layers"
    if is_always(lambda n, k: math.ceil((n - 1) / (k - 1))):
        return "that is the plain stack: here each layer looks k times as far"
    if is_always(lambda n, k: math.floor(math.log(n, k) + 1e-9)):
        return "rounded down: 10 words and k = 3 need 3 layers, not 2"
    if is_always(lambda n, k: math.floor(math.log(n, k) + 1e-9) + 1):
        return "one too many when n is a power of k: 9 words, k = 3, need 2 layers"
    if is_always(lambda n, k: math.ceil(math.log2(n))):
        return "is the base of the logarithm k?"
    if is_always(lambda n, k: math.ceil(math.log(2 * n - 1, k) - 1e-9)):
        return "that is for layers that look both ways: these look back only"
    wrong = [i for i in range(len(cases)) if answers[i] != right[i]]
    if wrong and all(cases[i] == (125, 5) for i in wrong):
        return "wrong for 125 words, k = 5: log(125, 5) is a bit more than 3 to Python"
    if wrong:
        (n, k), layers = cases[wrong[0]], right[wrong[0]]
        return f"{n} words and k = {k} need {layers} layers, not {answers[wrong[0]]}"
    if function(1, 3) != 0:
        return "n = 1: one word has heard itself before the first layer, so 0"
    if function(3**40, 3) != 40 or function(3**40 + 1, 3) != 41:
        return (
            "right up to 199 words, but not for 3**40 and 3**40 + 1: avoid logarithms"
        )
    return "correct"


def check_equal(function: Function) -> str:
    """`my_equal(c, d)`: the length n at which attention costs as much."""
    cases = [(c, d) for c in (6, 8, 9, 15) for d in (16, 64, 512)]
    answers = [function(c, d) for c, d in cases]
    if any(answer is None for answer in answers):
        return "not done yet"

    def is_always(formula: Any) -> Any:
        pairs = zip(answers, cases, strict=True)
        return all(abs(answer - formula(c, d)) < 1e-6 for answer, (c, d) in pairs)

    for formula, mistake in (
        (lambda c, d: d, "n = d compares Table 1's terms: put in the constants"),
        (lambda c, d: c * d / 2, "the four projections are missing"),
        (lambda c, d: c * d, "projections and the 2 of 2 n² d are missing"),
        (lambda c, d: (c - 4) * d, "scores and mix: there are two products of n² d"),
        (lambda c, d: (c - 3) * d / 2, "three projections? The output has one, too"),
        (lambda c, d: (c - 4) / 2, "the width d is lost: was the division by n d?"),
        (lambda c, d: 2 * d / (c - 4), "upside down: a dearer rival crosses later"),
        (lambda c, d: (4 - c) * d / 2, "a sign is wrong: the GRU crosses at n = d"),
    ):
        if is_always(formula):
            return mistake
    if not is_always(lambda c, d: (c - 4) * d / 2):
        return f"c = 6, d = 16 should give 16, not {function(6, 16)}"
    plain, equal = function(2, 64), function(4, 64)
    if plain is None or plain < 0:
        return (
            "c = 2: attention is dearer at every length, so 0, and no negative length"
        )
    if plain != 0 or equal != 0:
        return f"c = 2 and c = 4 should give 0, not {plain} and {equal}"
    return "correct"


def check_hub(function: Function, n: Any = 40) -> str:
    """`my_mask(n)`: a sparse mask that connects all words in two layers."""
    mask = function(n)
    if mask is None:
        return "not done yet"
    if not isinstance(mask, torch.Tensor):
        return f"return a tensor, not a {type(mask).__name__}"
    if mask.dtype != torch.bool:
        return f"the mask should be bool, not {mask.dtype}"
    if mask.shape != (n, n):
        return f"for n = {n} the mask should be {(n, n)}, not {tuple(mask.shape)}"
    window = near(n, 3)
    if mask.all():
        return f"that is full attention: {n * n} looks, and {5 * n} are allowed"
    if not (mask & window).any():
        return "upside down? True means: may look"
    if torch.equal(mask, mask.tril()):
        return "that looks back only: nobody can hear a later word"
    if not mask.diagonal().all():
        return "a word hears itself, too: the diagonal is missing"
    if not mask[window].all():
        return "the windows of three are not in it"
    if torch.equal(mask, window):
        return "windows alone: only words up to two places apart are connected"

    def two_layers(x: Any) -> Any:
        x = fused_attention(x, x, x, mask)
        return fused_attention(x, x, x, mask)

    heard = influence(two_layers, random(n, 4)) > 0
    if not heard.all():
        rows, columns = mask.all(1), mask.all(0)
        if columns.any() and not rows.any():
            return "all hear the hub, but the hub hears only its neighbors"
        if rows.any() and not columns.any():
            return "the hub hears all, but nobody hears the hub"
        i, j = (~heard).nonzero()[0].tolist()
        return f"output {i} does not hear word {j} within two layers"
    if mask.sum() > 5 * n:
        return f"connected, but with {mask.sum()} looks: {5 * n} are enough"
    return "correct" if n == 7 else check_hub(function, 7)
