"""BLEU of a corpus: problem 3.3, and what the checks of chapter 16 share with it."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from annotated_transformer.checks.common import (
    Function,
    ask,
    compare,
    errors_mean,
    need,
    need_number,
    same,
    seeded,
    verdict,
)

__all__ = ["check_bleu"]

Corpus = list[list[str]]
Counts = Counter[tuple[str, ...]]


def ngrams(words: Sequence[str], n: int) -> Counts:
    """How often each n-gram occurs."""
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def rows_of(
    hypotheses: Corpus,
    references: Corpus,
    *,
    count: Callable[[Sequence[str], int], Counts] = ngrams,
    order: int = 4,
    clip: bool = True,
    recall: bool = False,
) -> Tensor:
    """A row of each sentence: two lengths, the matches and the n-grams of each n.

    The switches make the wrong counts that the checks know.
    """
    rows = []
    for ours, theirs in zip(hypotheses, references, strict=True):
        matches, total = [], []
        for n in range(1, order + 1):
            a, b = count(ours, n), count(theirs, n)
            loose = sum(times for gram, times in a.items() if gram in b)
            matches.append((a & b).total() if clip else loose)
            total.append((b if recall else a).total())
        rows.append([len(ours), len(theirs), *matches, *total])
    return torch.tensor(rows).double()


def bleu_of(rows: Tensor) -> Tensor:
    """BLEU from such rows, or from a sum of them: the one reference of all checks."""
    h, r, matches, total = rows.split([1, 1, 4, 4], -1)
    precision = matches / total.clamp(min=1)
    brevity = (1 - r / h).clamp(max=0).exp()[..., 0]
    return 100 * brevity * precision.log().mean(-1).exp()  # log 0 = -inf gives 0


Mistakes = Iterator[tuple[Tensor, str]]


def bleu_mistakes(hypotheses: Corpus, references: Corpus) -> Mistakes:
    """What a corpus gets by one mistake each, and its name."""
    rows = rows_of(hypotheses, references)
    h, r = rows.sum(0)[:2]
    score, brevity = bleu_of(rows.sum(0)), (1 - r / h).clamp(max=0).exp()
    ratio, turned = h / r, 1 - h / r
    each = (1 - rows[:, 1] / rows[:, 0]).clamp(max=0).exp().mean()
    upside_down = "the brevity penalty is upside down: exp(1 - reference / output)"
    penalties = [
        (torch.ones(()), "too short, and no brevity penalty (or one upside down)"),
        ((1 - r / h).exp(), "a longer output was rewarded: the penalty is at most 1"),
        (turned.clamp(max=0).exp(), upside_down),
        (turned.exp(), upside_down),
        (
            ratio.clamp(max=1),
            "the penalty is exp(1 - reference / output), not the ratio",
        ),
        ((-r / h).exp(), "the penalty is exp(1 - reference / output): where is the 1?"),
        (each, "the lengths of the whole corpus count, not a mean over sentences"),
    ]
    sentences = "a mean of sentence scores: add up the counts of the corpus first"
    yield score / 100, "a share: BLEU is given from 0 to 100"
    yield bleu_of(rows).nan_to_num().mean(), sentences
    for wrong, message in penalties:
        yield score / brevity * wrong, message
    for wrong, message in _wrong_means(rows_of(hypotheses, references, order=5)):
        yield 100 * brevity * wrong, message
    yield from _wrong_counts(hypotheses, references)


def _wrong_means(rows: Tensor) -> list[tuple[Tensor, str]]:
    """Other means of the precisions, or of another number of them."""
    matches, total = rows[:, 2:7], rows[:, 7:]
    five = matches.sum(0) / total.sum(0).clamp(min=1)
    by_sentence = (matches / total.clamp(min=1)).mean(0)[:4]
    p, precisions = five[:4], "precisions averaged over sentences: "
    smooth = ((matches.sum(0) + 1) / (total.sum(0) + 1))[:4]
    return [
        (p.mean(), "the mean of the four precisions is geometric, not arithmetic"),
        (p.prod(), "the fourth root of the product is missing"),
        (p.prod().sqrt(), "the fourth root of the product, not the square root"),
        (p.prod() / 4, "x ** 1 / 4 divides by 4: put 1 / 4 in brackets"),
        (p[:1].prod(), "single words only: n goes up to 4"),
        (p[:2].prod() ** (1 / 2), "up to 2-grams: n goes up to 4"),
        (p[:3].prod() ** (1 / 3), "up to 3-grams: n goes up to 4"),
        (five.prod() ** (1 / 5), "up to 5-grams: n goes up to 4"),
        (five[1:].prod() ** (1 / 4), "n goes from 1 to 4, not from 2 to 5"),
        (p[3], "4-grams only: n goes from 1 to 4"),
        (smooth.prod() ** (1 / 4), "no smoothing: nothing is added to the counts"),
        (p.log2().mean().exp(), "log2 with exp: use one base for both"),
        (p.log10().mean().exp(), "log10 with exp: use one base for both"),
        (by_sentence.prod() ** (1 / 4), precisions + "add up all counts, then divide"),
    ]


def _wrong_counts(hypotheses: Corpus, references: Corpus) -> Mistakes:
    """The scores from n-grams that were counted in another way."""
    case = hypotheses, references

    def first(words: Sequence[str], n: int) -> Counts:
        return ngrams(words[:-1], n)

    def once(words: Sequence[str], n: int) -> Counts:
        return Counter(set(ngrams(words, n)))

    def lower(words: Sequence[str], n: int) -> Counts:
        return ngrams([word.lower() for word in words], n)

    joined = [[[word for words in side for word in words]] for side in case]
    loose = "not clipped: an n-gram counts at most as often as in the reference"
    recall = "divided by the reference's n-grams: precision divides by the output's"
    borders = "n-grams run over the ends of sentences: count each sentence by itself"
    for rows, message in (
        (rows_of(*case, clip=False), loose),
        (rows_of(*case, recall=True), recall),
        (rows_of(references, hypotheses), "hypotheses and references are swapped"),
        (rows_of(*case, count=first), "off by one: the last n-gram of each is missing"),
        (rows_of(*case, count=once), "each n-gram counts once: count all of them"),
        (rows_of(*case, count=lower), "capitals are lost: The and the are two words"),
        (rows_of(*joined), borders),
        (_pooled(*case)[None], "an n-gram must stand in its own sentence's reference"),
    ):
        yield bleu_of(rows.sum(0)), message


def _pooled(hypotheses: Corpus, references: Corpus) -> Tensor:
    """The row of a corpus whose n-grams may stand in any reference."""
    row = rows_of(hypotheses, references).sum(0)
    for n in range(1, 5):
        a, b = (
            sum((ngrams(words, n) for words in side), Counts())
            for side in (hypotheses, references)
        )
        row[1 + n] = (a & b).total()
    return row


def bleu_case(seed: int) -> tuple[Corpus, Corpus]:
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
        references.append(["The", *reference[1:]])
        hypotheses.append(hypothesis)
    hypotheses[0] = [*hypotheses[0], "a", "dog"]
    return hypotheses, references


def need_bleu(function: Function, hypotheses: Corpus, references: Corpus) -> None:
    """Raise a Mistake unless the answer gives this corpus its BLEU."""
    found = need_number(ask(function, hypotheses, references))
    right = bleu_of(rows_of(hypotheses, references).sum(0))
    compare(found, right, bleu_mistakes(hypotheses, references), tolerance=1e-5)


def need_zero(function: Function, hypotheses: Corpus, references: Corpus) -> None:
    """Raise a Mistake unless this corpus, without a common 4-gram, gets 0."""
    fails = "an order without a hit fails ({error}): the score is 0 there"
    with errors_mean(fails, ZeroDivisionError, ValueError):
        found = need_number(ask(function, hypotheses, references))
    need(found < 1e-6, f"no 4-gram is right, so the score is 0, not {found:.4g}")


def need_short_outputs(function: Function, references: Corpus) -> None:
    """Raise a Mistake if an output without 4-grams spoils the corpus' score."""
    fails = "an output of one word, or of none, fails ({error}): it has no 4-grams"
    more = [*references, ["dog"], []]
    with errors_mean(fails, ZeroDivisionError, ValueError):
        share = _own_share(function, (more, more), references)
    all_right = "all right, one output a single word and one empty: that should get 100"
    need(same(share, 1, 1e-6), f"{all_right}, not {100 * share:.2f}")


def _own_share(
    function: Function, case: tuple[Corpus, Corpus], references: Corpus
) -> float:
    """The score as a share of the student's own best one, whatever its scale."""
    best = need_number(ask(function, references, references))
    need(best > 0, f"references compared with themselves should get 100, not {best}")
    return need_number(ask(function, *case)) / best


def check_bleu(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`corpus_bleu(hypotheses, references)`: lists of tokens in, 0 to 100 out (§6.1).

    Parts: "precision" (outputs long enough), "brevity", "zero" (an order without hits).
    """
    return verdict(
        function, part, seed, precision=_precision, brevity=_brevity, zero=_zero
    )


def _precision(function: Function, seed: int) -> None:
    need_bleu(function, *bleu_case(seed))


def _brevity(function: Function, seed: int) -> None:
    _, references = bleu_case(seed)
    cut = [tokens[: len(tokens) - i] for i, tokens in enumerate(references)]
    c, r = (sum(map(len, side)) for side in (cut, references))
    compare(
        _own_share(function, (cut, references), references),
        bleu_of(rows_of(cut, references).sum(0)) / 100,
        ((score / 100, message) for score, message in bleu_mistakes(cut, references)),
        f"{c} tokens for {r}, all of them right",
        tolerance=1e-6,
    )


def _zero(function: Function, seed: int) -> None:
    hypotheses, references = [["a", "b"], ["c"]], [["a", "b", "c", "d"], ["c", "d"]]
    if seed:
        hypotheses, references = [["x", "y", "q"], ["z"]], [["x", "y", "z", "u"], ["z"]]
    need_zero(function, hypotheses, references)
    need_short_outputs(function, bleu_case(seed + 1)[1])
