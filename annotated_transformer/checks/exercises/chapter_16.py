"""Checks of chapter 16, Scores and averages: one for each exercise."""

import random
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from annotated_transformer.checks.common import (
    Answer,
    compare,
    errors_mean,
    exercise,
    need,
    need_number,
    same,
    seeded,
)
from annotated_transformer.checks.problems.bleu import (
    Corpus,
    bleu_case,
    need_bleu,
    need_short_outputs,
    need_zero,
    rows_of,
)
from annotated_transformer.corpora import sample_captions
from annotated_transformer.special import EOS, PAD

__all__ = [
    "check_average",
    "check_corpus_bleu",
    "check_f1",
    "check_leads",
    "check_paired",
]


def _scores(both: float, did: float, should: float) -> list[float]:
    """Precision, recall and F1 from three counts."""
    precision, recall = both / max(1, did), both / max(1, should)
    return [precision, recall, 2 * both / max(1, did + should)]


def _three(answer: Any) -> list[float]:
    listed = answer.tolist() if hasattr(answer, "tolist") else answer
    three = isinstance(listed, list | tuple) and len(listed) == 3
    need(three, "return three numbers: precision, recall, F1")
    return [need_number(number) for number in listed]


def _f1(said: Tensor, labels: Tensor, token: int) -> list[float]:
    real = labels != PAD
    did, should = (said == token) & real, labels == token
    return _scores(*(x.sum().item() for x in (did & should, did, should)))


def _f1_mistakes(said: Tensor, labels: Tensor, token: int) -> list[tuple[Any, str]]:
    """What comes out by one mistake each, and its name."""
    real, did, should = labels != PAD, said == token, labels == token
    b, d, s = ((x & real).sum().item() for x in (did & should, did, should))
    precision, recall, f1 = _f1(said, labels, token)
    n, everywhere = real.sum().item(), did.sum().item()
    agree = ((did == should) & real).sum().item()
    anywhere = torch.minimum((did & real).sum(-1), should.sum(-1)).sum().item()
    rows = [_f1(a[None], c[None], token) for a, c in zip(said, labels, strict=True)]
    swapped = "precision and recall are swapped: precision is of what was said"
    all_real = "divided by all real places: precision is a share of what was said"
    product = precision * recall
    mistakes = [
        (_scores(b, everywhere, s), "what is said at padded places does not count"),
        (_scores(b, (did & (said != PAD)).sum().item(), s), "real is what labels say"),
        ([recall, precision, f1], swapped),
        ([100 * precision, 100 * recall, 100 * f1], "shares from 0 to 1, not percent"),
        (_scores(b, n, s), all_real),
        (_scores(b, d, n), "divided by all real places: recall is of what should be"),
        (_scores(b, n, n), all_real),
        (_scores(anywhere, d, s), "a hit is the token at the same place in both"),
        (_scores(agree, n, n), "that is accuracy: count the places with the token"),
        ([sum(x) / len(rows) for x in zip(*rows, strict=True)], "count over all rows"),
        ([f1, precision, recall], "the order is precision, recall, F1"),
    ]
    for wrong, message in (
        ((precision + recall) / 2, "F1 is not the plain mean: 2PR / (P + R)"),
        (f1 / 2, "F1 is 2PR / (P + R): where is the 2?"),
        (product, "F1 is 2PR / (P + R): did you forget to divide?"),
        (2 * product, "F1 is 2PR / (P + R): did you forget to divide?"),
        (product**0.5, "F1 is no geometric mean: 2PR / (P + R)"),
    ):
        mistakes.append(([precision, recall, wrong], message))
    return mistakes


@exercise
def check_f1(function: Answer) -> None:
    """`my_f1(said, labels, token)`: precision, recall and F1 of one token."""
    said = torch.tensor([[5, 5, 5, EOS], [6, 7, EOS, 5], [5, EOS, 5, 5]])
    labels = torch.tensor([[5, 6, 5, EOS], [5, 7, EOS, PAD], [6, EOS, PAD, PAD]])
    case, hint = (said, labels, 5), "both, said and should, each at real places"
    compare(_three(function(*case)), _f1(*case), _f1_mistakes(*case), hint)
    more = torch.randint(4, 8, (2, 40, 30), generator=seeded(0))
    more[1, :, 20:] = PAD
    zero = "where there is nothing to divide by, return 0"
    for case, hint in (
        ((said, labels, 9), f"a token that never occurs: {zero}"),
        ((said, labels, 7), "a token that is always right"),
        ((said[:1], labels[1:2], 6), "a token that is neither said nor wanted"),
        ((said[2:], labels[:1], 6), "a token that is wanted and never said"),
        ((said[:1], labels[2:], 5), "a token that is said and never wanted"),
        ((said, labels, EOS), "the end token is a token like others"),
        ((*more, 6), "40 rows of 30"),
    ):
        with errors_mean(zero, ZeroDivisionError):
            compare(_three(function(*case)), _f1(*case), hint=hint)


@cache
def captions() -> tuple[Corpus, Corpus, Corpus]:
    """Two made-up systems, the second a little better, and the references they spoil.

    Both drop some words and say others twice or as an article.
    """
    pairs = sample_captions()["captions"]
    references = [english.replace(".", " .").split() for _, english in pairs]
    better = spoiled(references, 0.22, random.Random(1))
    worse = spoiled(references, 0.27, random.Random(2))
    return worse, better, references


def spoiled(references: Corpus, share: float, luck: random.Random) -> Corpus:
    """The references with this share of words damaged."""
    hypotheses = []
    for words in references:
        hypothesis: list[str] = []
        for word in words:
            if luck.random() >= share:
                hypothesis += [word]
            elif luck.random() < 0.5:
                hypothesis += luck.choice((["a"], ["the"], [word, word]))
        hypotheses.append(hypothesis)
    return hypotheses


@exercise
def check_corpus_bleu(function: Answer) -> None:
    """`my_bleu(hypotheses, references)`: lists of lists of words in, 0 to 100 out."""
    _, better, references = captions()
    long = bleu_case(0)
    one = better[:1], references[:1]
    for case in (long, (better, references), one):
        need_bleu(function, *case)
    need_zero(function, [long[0][0][::-1]], [long[1][0]])
    need_short_outputs(function, references)


def _mixed() -> tuple[Tensor, Tensor]:
    """B is better in long sentences, and has no 4-gram in the short ones."""
    short = torch.tensor([5.0, 5, 4, 3, 2, 1, 5, 4, 3, 2]).repeat(8, 1)
    long = torch.tensor([100.0, 100, 60, 40, 30, 20, 100, 99, 98, 97]).repeat(4, 1)
    a = torch.cat([short, long]).double()
    b = a.clone()
    b[:8, 5] = 0
    b[8:, 2:6] += 20
    return a, b


@exercise
def check_paired(function: Answer) -> None:
    """`my_paired(rows_a, rows_b, generator)`: the share of draws that B wins."""
    *systems, references = captions()
    a, b = (rows_of(texts, references)[:50] for texts in systems)
    mixed_a, mixed_b = _mixed()

    def share(a: Tensor, b: Tensor, seed: int = 3) -> float:
        return need_number(function(a, b, seeded(seed)))

    found, equal = share(a, b, 0), share(b, b)
    need(found <= 1, "a share from 0 to 1, not a percentage or a count")
    half = "an equal score counts as half a win: B has to be higher"
    need(equal != 0.5 or share(b[:1], b[:1]) != 0.5, half)
    apart = "B against itself wins half: score both systems on the same draw"
    need(not 0.3 < equal < 0.7, apart)
    higher = "B against itself wins always: an equal score is not a higher one"
    need(equal != 1, higher)
    need(found >= 0.3, "that is how often A wins")
    all_n = (
        "B wins every draw: is one as many sentences as there are, with replacement?"
    )
    need(found < 1, all_n)
    sums = "the mean of sentence scores: sum the rows of a draw first"
    need(share(mixed_a, mixed_b) >= 0.5, sums)
    _need_draws(lambda seed: share(a, b, seed), found)


def _need_draws(share: Callable[[int], float], found: float) -> None:
    """Raise a Mistake unless the shares for some seeds (`found` for 0) are fair.

    B wins 85 of 100 draws.
    """
    shares = [found, share(1), share(2)]
    other = "the same generator gives another share: draw with it alone"
    need(share(0) == found, other)
    need(len(set(shares)) > 1, "each generator gives the same share: draw with yours")

    def whole(found: float, parts: int) -> bool:
        return same(round(parts * found) / parts, found, 1e-6)

    few = all(whole(found, 100) for found in shares)
    need(
        not few or not all(whole(share(seed), 100) for seed in (3, 4)),
        "the shares are whole hundredths: are these 1,000 draws?",
    )
    sentences = "1,000 draws give thousandths: is the axis of the sentences summed?"
    need(all(whole(found, 1000) for found in shares), sentences)
    mean = sum(shares) / len(shares)
    n = "does a draw have as many sentences as there are?"
    need(abs(mean - 0.847) < 0.04, f"{mean:.3f}, expected about 0.85: {n}")


Weights = dict[str, Tensor]


def _mean(checkpoints: list[Weights]) -> Weights:
    return {k: torch.stack([c[k] for c in checkpoints]).mean(0) for k in checkpoints[0]}


def _average_mistakes(checkpoints: list[Weights]) -> list[tuple[Any, str]]:
    """What comes out by one mistake each, and its name."""
    n, first = len(checkpoints), checkpoints[0]
    names, right = list(first), _mean(checkpoints)
    running = dict(first)
    for other in checkpoints[1:]:
        running = {k: (running[k] + other[k]) / 2 for k in names}
    one_number = {k: right[k].mean() for k in names}
    along_rows = {
        k: torch.stack([c[k].mean(0) for c in checkpoints]).mean(0) for k in names
    }
    half = "(a + b) / 2 again and again counts the last checkpoint for half"
    return [
        ({k: n * right[k] for k in names}, "the sum: divide by how many there are"),
        ({k: n * right[k] / 2 for k in names}, "divided by 2: there may be more"),
        (running, half),
        (first, "that is the first checkpoint alone"),
        (checkpoints[-1], "that is the last checkpoint alone"),
        (one_number, "one number for a whole tensor: average over checkpoints alone"),
        (along_rows, "the mean is over the checkpoints, not along their rows"),
        (_mean(checkpoints[1:]), "the first checkpoint is missing"),
        (_mean(checkpoints[:-1]), "the last checkpoint is missing"),
        (list(right.values()), "return a dictionary: which name has which tensor?"),
    ]


@exercise
def check_average(function: Answer) -> None:
    """`my_average(checkpoints)`: the mean of dictionaries of tensors, name by name."""
    g = seeded(0)
    for n in (3, 5, 1):
        shapes = {"embeddings.weight": (4, 3), "norm.bias": (3,), "scale": ()}
        case = [
            {k: torch.randn(size, generator=g) for k, size in shapes.items()}
            for _ in range(n)
        ]
        found, right = function(case), _mean(case)
        mistakes = _average_mistakes(case) if n > 1 else []
        if isinstance(found, dict) and found.keys() == right.keys():
            for name, tensor in right.items():
                answer = torch.as_tensor(found[name])
                wrong = [(w[name], m) for w, m in mistakes if isinstance(w, dict)]
                compare(answer, tensor, wrong, f"{name}, {n} checkpoints")
        for wrong, message in mistakes:
            need(isinstance(wrong, dict) or not same(found, wrong), message)
        need(isinstance(found, dict), "return a dictionary, as each checkpoint is one")
        missing = right.keys() ^ found.keys()
        need(not missing, f"the names should be those of the checkpoints: {missing}")


def _leads(rewards: Tensor) -> Tensor:
    n = len(rewards)
    return rewards - (rewards.sum() - rewards) / (n - 1)


@exercise
def check_leads(function: Answer) -> None:
    """`my_leads(rewards)`: each reward minus the mean of the *other* rewards."""
    for rewards in (
        [0.9, 0.5, 0.5, 0.3, 0.2, 0.0],
        [1.0, 0.0],
        [0.25, 0.75, 0.5, 0.5],
        [0.4] * 6,
    ):
        right = torch.tensor(rewards, dtype=torch.float64)
        n, centered = len(rewards), right - right.mean()
        others = "the mean of the others leaves the draw itself out"
        mistakes = [
            (centered, others),
            (right, "where is the mean of the others?"),
            (-_leads(right), "upside down: a better draw has a positive lead"),
            (right - (right.sum() - right) / n, f"there are {n - 1} others, not {n}"),
            (right - right.sum() / (n - 1), others),
            (right - right.max(), "not the best: the mean of the others"),
            (right - right.median(), "not the median: the mean of the others"),
            (centered / right.std().clamp(min=1e-9), "no standard deviation here"),
        ]
        answer = function(rewards)
        listed = answer.tolist() if hasattr(answer, "tolist") else answer
        fits = isinstance(listed, list | tuple) and len(listed) == n
        need(fits, f"return a list of {n} leads, one for each reward")
        found = torch.tensor([need_number(x) for x in listed], dtype=torch.float64)
        wrong = mistakes if centered.any() else []
        compare(found, _leads(right), wrong, f"for the rewards {rewards}", 1e-6)
