"""BLEU of a corpus, problem 3.3."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch

from annotated_transformer.checks.common import (
    Function,
    Mistake,
    ask,
    compare,
    need,
    need_number,
    seeded,
    verdict,
)

__all__ = ["check_bleu"]


def n_grams(
    tokens: Sequence[str], n: int, missing: int = 0
) -> Counter[tuple[str, ...]]:
    """How often each run of n tokens occurs; the last ones can be left out."""
    starts = range(len(tokens) - n + 1 - missing)
    return Counter(tuple(tokens[i : i + n]) for i in starts)


def bleu_reference(
    hypotheses: Sequence[Sequence[str]],
    references: Sequence[Sequence[str]],
    *,
    order: int = 4,
    clip: bool = True,
    brevity: bool = True,
    arithmetic: bool = False,
    recall: bool = False,
    turned: bool = False,
    linear: bool = False,
    any_length: bool = False,
    missing: int = 0,
) -> float:
    """Corpus BLEU, 0 to 100; the switches make the wrong versions that checks know."""
    hits, totals = [0] * order, [0] * order
    for ours, theirs in zip(hypotheses, references, strict=True):
        for n in range(1, order + 1):
            a, b = n_grams(ours, n, missing), n_grams(theirs, n, missing)
            hits[n - 1] += sum(
                min(k, b[g]) if clip else k * (g in b) for g, k in a.items()
            )
            totals[n - 1] += sum((b if recall else a).values())
    if 0 in hits:
        return 0.0
    precisions = [hit / total for hit, total in zip(hits, totals, strict=True)]
    mean = math.exp(sum(map(math.log, precisions)) / order)
    if arithmetic:
        mean = sum(precisions) / order
    c, r = (sum(map(len, side)) for side in (hypotheses, references))
    if turned:
        c, r = r, c
    short = any_length or c < r
    penalty = (c / r if linear else math.exp(1 - r / c)) if brevity and short else 1.0
    return 100 * penalty * mean


def bleu_case(seed: int) -> tuple[list[list[str]], list[list[str]]]:
    """References, and longer hypotheses that got some words wrong."""
    g = seeded(seed + 11)

    def draw(n: int) -> int:
        return int(torch.randint(n, (1,), generator=g))

    words = "the a dog cat man sees red ball on in".split()
    references, hypotheses = [], []
    for _ in range(5):
        reference = [words[draw(len(words))] for _ in range(7 + draw(6))]
        hypothesis = [w if draw(6) else words[draw(3)] for w in reference]
        hypothesis[0] = hypothesis[1] = "the"  # a word too often: clipping matters
        references.append(reference)
        hypotheses.append(hypothesis)
    hypotheses[0] = [*hypotheses[0], "a", "dog"]
    return hypotheses, references


def check_bleu(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`corpus_bleu(hypotheses, references)`: lists of tokens in, 0 to 100 out (§6.1).

    Parts: "precision" (outputs long enough), "brevity", "zero" (an order without hits).
    """
    return verdict(
        function, part, seed, precision=_precision, brevity=_brevity, zero=_zero
    )


def _precision(function: Function, seed: int) -> None:
    case = bleu_case(seed)
    found = need_number(ask(function, *case))
    right = bleu_reference(*case)
    one_by_one = [bleu_reference([a], [b]) for a, b in zip(*case, strict=True)]

    def version(**switches: Any) -> float:
        return bleu_reference(*case, **switches)

    compare(
        found,
        right,
        (
            (right / 100, "a share: BLEU is given from 0 to 100"),
            (
                version(clip=False),
                "not clipped: an n-gram counts at most as often as in the reference",
            ),
            (
                sum(one_by_one) / len(one_by_one),
                "a mean of sentence scores: add up the counts of the corpus first",
            ),
            (
                version(arithmetic=True),
                "the mean of the four precisions is geometric: through the logarithms",
            ),
            (version(missing=1), "off by one: the last n-gram of each is missing"),
            (version(order=3), "up to 3-grams: there are four orders"),
            (version(order=5), "up to 5-grams: there are four orders"),
            (version(order=1), "single words only: there are four orders"),
            (
                version(turned=True),
                "the brevity penalty is upside down: exp(1 - reference / output)",
            ),
            (
                version(any_length=True),
                "a longer output was rewarded: the penalty is at most 1",
            ),
            (
                version(recall=True),
                "divided by the reference's n-grams: precision divides by the output's",
            ),
        ),
        f"it should be {right:.3f}, not {found:.3f}",
        tolerance=1e-6,
    )


def _own_share(function: Function, case: tuple, references: list) -> float:
    """The score as a share of the student's own best one, whatever its scale."""
    best = need_number(ask(function, references, references))
    need(best > 0, f"references compared with themselves should get 100, not {best}")
    return need_number(ask(function, *case)) / best


def _brevity(function: Function, seed: int) -> None:
    _, references = bleu_case(seed)
    cut = [tokens[: len(tokens) - i] for i, tokens in enumerate(references)]
    right = bleu_reference(cut, references) / 100  # every n-gram right, but too short
    c, r = (sum(map(len, side)) for side in (cut, references))
    each = [math.exp(1 - len(b) / len(a)) for a, b in zip(cut, references, strict=True)]
    compare(
        _own_share(function, (cut, references), references),
        right,
        (
            (1.0, "too short, and no brevity penalty"),
            (math.exp(1 - c / r), "the penalty is upside down: reference / output"),
            (
                c / r,
                "the brevity penalty is exp(1 - reference / output), not the ratio",
            ),
            (
                math.exp(-r / c),
                "the penalty is exp(1 - reference / output): the 1 is lost",
            ),
            (
                sum(each) / len(each),
                "the lengths of the whole corpus count, not a mean",
            ),
        ),
        f"{c} tokens for {r}, all of them right: that should get {100 * right:.2f}",
        tolerance=1e-6,
    )


def _zero(function: Function, seed: int) -> None:
    hypotheses, references = [["a", "b"], ["c"]], [["a", "b", "c", "d"], ["c", "d"]]
    if seed:
        hypotheses, references = [["x", "y", "q"], ["z"]], [["x", "y", "z", "u"], ["z"]]
    try:
        found = need_number(ask(function, hypotheses, references))
    except (ZeroDivisionError, ValueError) as error:
        raise Mistake(
            f"an order without a hit fails ({error}): the score is 0 there"
        ) from None
    need(found == 0, f"no 4-gram is right, so the score is 0, not {found}")
    # A short sentence has no 4-grams, and must not spoil the corpus' score.
    _, references = bleu_case(seed + 1)
    ours = theirs = [*references, ["dog"], []]
    try:
        share = _own_share(function, (ours, theirs), references)
    except (ZeroDivisionError, ValueError) as error:
        raise Mistake(
            f"an output of one word, or of none, fails ({error}): it has no 4-grams, "
            "that is all"
        ) from None
    need(
        math.isclose(share, 1, rel_tol=1e-6),
        "all right, one output a single word and one empty: that should get 100, "
        f"not {100 * share:.2f}",
    )
