"""BLEU from its counts, and how sure a difference is (chapters 15 and 16)."""

from collections import Counter
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from annotated_transformer.lessons.claims import seeded

Texts = Sequence[Sequence[str]]  # the words of each sentence


def ngrams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    """How often each n words in a row occur."""
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def statistics(hypotheses: Texts, references: Texts) -> Float[Tensor, "sentence ten"]:
    """All that BLEU asks: 2 lengths, 4 counts of matches, 4 counts of n-grams."""
    rows = []
    for ours, theirs in zip(hypotheses, references, strict=True):
        found = {n: ngrams(ours, n) for n in (1, 2, 3, 4)}
        matches = [(found[n] & ngrams(theirs, n)).total() for n in found]
        totals = [found[n].total() for n in found]
        rows.append([len(ours), len(theirs), *matches, *totals])
    return torch.tensor(rows, dtype=torch.float64)


def bleu_of(rows: Float[Tensor, "*rows ten"]) -> Float[Tensor, "*rows"]:
    """BLEU from 0 to 100, of a sum of rows or of each row alone; no smoothing."""
    h, r, matches, total = rows.split([1, 1, 4, 4], -1)
    precision = matches / total.clamp(min=1)
    brevity = (1 - r / h).clamp(max=0).exp()[..., 0]
    return 100 * brevity * precision.log().mean(-1).exp()  # log 0 = -inf gives 0


def draws(n: int, repeats: int = 2000, *, seed: int = 0) -> Float[Tensor, "repeats n"]:
    """How often each of n sentences comes when n are drawn with replacement."""
    chosen = torch.randint(n, (repeats, n), generator=seeded(seed))
    times = torch.zeros(repeats, n, dtype=torch.float64)
    return times.scatter_add_(1, chosen, torch.ones_like(times))


def interval(values: Float[Tensor, " repeats"]) -> tuple[float, float]:
    """Where 95 of 100 values lie: cut off 2.5 % at each end."""
    low, high = values.quantile(values.new_tensor([0.025, 0.975])).tolist()
    return low, high


def bleu_rows(
    outputs: Sequence[str], references: Sequence[str]
) -> Float[Tensor, "sentence 10"]:
    """What BLEU counts in each sentence: both lengths, 4 hits, 4 totals."""
    from sacrebleu.metrics import BLEU

    metric, rows = BLEU(), []
    for output, reference in zip(outputs, references, strict=True):
        score = metric.corpus_score([output], [[reference]])
        rows.append([score.sys_len, score.ref_len, *score.counts, *score.totals])
    return torch.tensor(rows).double()


def bleu_gain(
    before: Sequence[str], after: Sequence[str], references: Sequence[str]
) -> tuple[float, float, float]:
    """How much BLEU rises, and the ends of its 95 % interval (paired bootstrap).

    Both are scored on the same sentences, drawn again and again with replacement.
    """
    one, two = (bleu_rows(texts, references) for texts in (before, after))
    low, high = bleu_lost(two, one).tolist()  # on the way back
    gain = bleu_of(two.sum(0)) - bleu_of(one.sum(0))
    return gain.item(), low, high


def bootstrap(
    statistic: Callable[[Tensor], Tensor], size: int, *, draws: int = 1000
) -> Float[Tensor, "2 ..."]:
    """The middle 95 % of a statistic over resampled sentences: the bootstrap.

    `statistic` takes the numbers of the sentences, (draw, size), and returns values,
    (draw, ...).
    """
    rows = torch.randint(size, (draws, size), generator=seeded(0))
    return statistic(rows).double().quantile(torch.tensor([0.025, 0.975]).double(), 0)


def mean_interval(values: Float[Tensor, " sentence"]) -> Float[Tensor, "2"]:
    """The bootstrap interval of 95 % of a mean over sentences."""
    return bootstrap(lambda rows: values[rows].mean(1), len(values))


def bleu_lost(
    before: Float[Tensor, "sentence count"], after: Float[Tensor, "sentence count"]
) -> Float[Tensor, "2"]:
    """The bootstrap interval of 95 % of the points of BLEU that a change costs."""

    def lost(rows: Tensor) -> Tensor:
        return bleu_of(before[rows].sum(1)) - bleu_of(after[rows].sum(1))

    return bootstrap(lost, len(before))
