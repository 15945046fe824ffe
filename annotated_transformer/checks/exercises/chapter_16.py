"""Checks of chapter 16, Scores and averages: one for each exercise."""

import math
import random
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from annotated_transformer.checks.common import Answer, exercise, seeded
from annotated_transformer.corpora import sample_captions
from annotated_transformer.special import EOS, PAD

__all__ = ["check_corpus_bleu", "check_f1", "check_paired"]

Corpus = list[list[str]]


@exercise
def check_f1(function: Answer) -> str:
    """`my_f1(said, labels, token)`: precision, recall and F1 of one token."""
    said = torch.tensor([[5, 5, 5, EOS], [6, 7, EOS, 5], [5, EOS, 5, 5]])
    labels = torch.tensor([[5, 6, 5, EOS], [5, 7, EOS, PAD], [6, EOS, PAD, PAD]])
    answer = function(said.clone(), labels.clone(), 5)
    if not hasattr(answer, "__len__") or len(answer) != 3:
        return "return three numbers: precision, recall, F1"

    def close(*wanted: float) -> bool:
        found = [float(a) for a in answer[: len(wanted)]]
        return all(abs(f - w) < 1e-3 for f, w in zip(found, wanted, strict=True))

    for wanted, mistake in (
        ((2 / 7,), "what is said at padded places does not count"),
        (
            (2 / 3, 1 / 2),
            "precision and recall are swapped: precision is of what was said",
        ),
        ((50,), "shares from 0 to 1, not percent"),
        ((2 / 9,), "divided by all real places: precision is a share of what was said"),
        ((1 / 2, 2 / 3, 7 / 12), "F1 is not the plain mean: 2PR / (P + R)"),
        ((1 / 2, 2 / 3, 2 / 7), "F1 is 2PR / (P + R): where is the 2?"),
        ((1 / 2, 2 / 3, 1 / 3), "F1 is 2PR / (P + R): did you forget to divide?"),
    ):
        if close(*wanted):
            return mistake
    if not close(1 / 2, 2 / 3, 4 / 7):
        return "for this example 1/2, 2/3 and 4/7 were expected"
    try:
        answer = function(said.clone(), labels.clone(), 9)
    except ZeroDivisionError:
        return "a token that is never said: return 0, don't divide by 0"
    return (
        "correct" if close(0, 0, 0) else "a token that never occurs should get 0, 0, 0"
    )


def ngrams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    """How often each n-gram occurs."""
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def statistics(hypotheses: Corpus, references: Corpus) -> Tensor:
    """A row of each sentence: two lengths, four of matches, four of n-grams."""
    rows = []
    for ours, theirs in zip(hypotheses, references, strict=True):
        row = [len(ours), len(theirs)]
        row += [(ngrams(ours, n) & ngrams(theirs, n)).total() for n in (1, 2, 3, 4)]
        rows.append(row + [ngrams(ours, n).total() for n in (1, 2, 3, 4)])
    return torch.tensor(rows).double()


def bleu_of(rows: Tensor) -> Tensor:
    """BLEU from such rows, or from a sum of them."""
    h, r, matches, total = rows.split([1, 1, 4, 4], -1)
    precision = matches / total.clamp(min=1)
    brevity = (1 - r / h).clamp(max=0).exp()[..., 0]
    return 100 * brevity * precision.log().mean(-1).exp()


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
def check_corpus_bleu(function: Answer) -> str:
    """`my_bleu(hypotheses, references)`: lists of lists of words in, 0 to 100 out."""
    _, hypotheses, references = captions()

    def ask(ours: Corpus, theirs: Corpus) -> Any:
        return function([list(words) for words in ours], [list(w) for w in theirs])

    answer = ask(hypotheses, references)
    try:
        answer = float(answer)
    except (TypeError, ValueError):
        return f"return one number, not {type(answer).__name__}"
    rows = statistics(hypotheses, references)
    total = rows.sum(0)
    h, r, right = total[0], total[1], bleu_of(total)
    p, penalty = total[2:6] / total[6:], (1 - r / h).exp()
    loose = [0] * 4  # matches without clipping
    for ours, theirs in zip(hypotheses, references, strict=True):
        for n in range(4):
            found, expected = ngrams(ours, n + 1), ngrams(theirs, n + 1)
            loose[n] += sum(times for gram, times in found.items() if gram in expected)
    unclipped = (torch.tensor(loose) / total[6:]).prod() ** (1 / 4)
    swapped = bleu_of(statistics(references, hypotheses).sum(0))
    for wrong, mistake in (
        (right / 100, "from 0 to 100, please"),
        (bleu_of(rows).mean(), "the mean of sentence scores: add all counts first"),
        (right / penalty, "there is no brevity penalty"),
        (right / penalty * (1 - h / r).exp(), "the penalty is upside down: 1 - r / h"),
        (100 * penalty * p.mean(), "the geometric mean, not the arithmetic one"),
        (100 * penalty * p.prod(), "the fourth root of the product is missing"),
        (
            100 * penalty * unclipped,
            "a word counts at most as often as in the reference",
        ),
        (100 * penalty * p[:3].prod() ** (1 / 3), "n goes up to 4, not 3"),
        (100 * penalty * p[0], "only single words count: n goes up to 4"),
        (swapped, "hypotheses and references are swapped"),
    ):
        if abs(answer - float(wrong)) < 1e-4 * max(1, float(wrong)):
            return mistake
    if not math.isclose(answer, right, abs_tol=1e-3):
        return f"{answer:.2f}, but {right:.2f} was expected"
    often = {"A": 3, "a": 3, "the": 3}  # articles three times
    long = [[w for w in words for _ in range(often.get(w, 1))] for words in hypotheses]
    wanted = bleu_of(statistics(long, references).sum(0))
    if not math.isclose(float(ask(long, references)), wanted, abs_tol=1e-3):
        return (
            "words that are said too often: are the counts clipped? No penalty above 1?"
        )
    return "correct"


@exercise
def check_paired(function: Answer) -> str:
    """`my_paired(rows_a, rows_b, generator)`: the share of draws that B wins."""
    worse, better, references = captions()
    a, b = (statistics(texts, references) for texts in (worse, better))

    def ask(a: Tensor, b: Tensor) -> Any:
        return function(a.clone(), b.clone(), seeded(3))

    answer = ask(a, b)
    answer, same = float(answer), float(ask(b, b))
    if answer > 1:
        return "a share from 0 to 1, not a percentage or a count"
    if 0.3 < same < 0.7:
        return "B against itself wins half: score both systems on the same draw"
    if same == 1:
        return "B against itself wins always: an equal score is not a higher one"
    if answer < 0.1:
        return "that is how often A wins"
    if answer == 1:
        return "no draw differs: draw with replacement, 1,000 times"
    # B is better in long sentences, and has no quadruple in the short ones
    short = torch.tensor([5.0, 5, 4, 3, 2, 1, 5, 4, 3, 2]).repeat(8, 1)
    long = torch.tensor([100.0, 100, 60, 40, 30, 20, 100, 99, 98, 97]).repeat(4, 1)
    a_mixed = torch.cat([short, long]).double()
    b_mixed = a_mixed.clone()
    b_mixed[:8, 5] = 0
    b_mixed[8:, 2:6] += 20
    if float(ask(a_mixed, b_mixed)) < 0.5:
        return "the mean of sentence scores: sum the rows of a draw first"
    if not 0.97 < answer < 0.9995:
        return f"{answer:.3f}, expected about 0.99: does a draw have all n sentences?"
    return "correct"
