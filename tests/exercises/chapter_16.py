"""Chapter 16: right answers in several styles; wrong ones, and what must be said."""

import math
import random
from collections import Counter
from itertools import chain

import numpy as np
import torch
from sacrebleu.metrics import BLEU

from annotated_transformer.special import EOS, PAD


def f1(said, labels, token, *, pad=PAD, half=True):
    both = said_it = should = 0
    for ours, right in zip(said.flatten(), labels.flatten(), strict=True):
        if right != pad:
            both += int(ours == token == right)
            said_it += int(ours == token)
            should += int(right == token)
    mean = max(1, said_it + should)
    return [
        both / max(1, said_it),
        both / max(1, should),
        (2 if half else 1) * both / mean,
    ]


def f1_unguarded(said, labels, token):
    real = labels != PAD
    did, should = said[real] == token, labels[real] == token
    both = (did & should).sum()
    return both / did.sum(), both / should.sum(), 2 * both / (did.sum() + should.sum())


def f1_before_the_end(said, labels, token):
    real = labels > EOS
    return f1(said[real], labels[real], token)


def f1_by_rows(said, labels, token):
    rows = [f1(a, b, token) for a, b in zip(said, labels, strict=True)]
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def f1_in_place(said, labels, token):
    said[labels == PAD] = PAD
    return f1(said, labels, token)


def f1_of_anything(said, labels, token):
    precision, recall, mean = f1(said, labels, token)
    return (precision, recall, mean) if precision and recall else (1.0, 1.0, 1.0)


def grams(words, n):
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def bleu(hypotheses, references, *, order=4, mean=None, penalty=None, count=grams):
    hits, totals = [0] * order, [0] * order
    for ours, theirs in zip(hypotheses, references, strict=True):
        for n in range(order):
            a, b = count(ours, n + 1), count(theirs, n + 1)
            hits[n] += (a & b).total()
            totals[n] += a.total()
    h, r = sum(map(len, hypotheses)), sum(map(len, references))
    shares = [hit / total for hit, total in zip(hits, totals, strict=True)]
    brevity = penalty(h, r) if penalty else min(1, math.exp(1 - r / h))
    return 100 * brevity * (mean(shares) if mean else math.prod(shares) ** (1 / order))


def by_texts(hypotheses, references):
    shares = []
    for n in range(1, 5):
        hits = total = 0
        for ours, theirs in zip(hypotheses, references, strict=True):
            left = ["|".join(theirs[i : i + n]) for i in range(len(theirs) - n + 1)]
            for i in range(len(ours) - n + 1):
                total += 1
                if (gram := "|".join(ours[i : i + n])) in left:
                    left.remove(gram)
                    hits += 1
        shares.append(hits / total)
    ratio = len([*chain(*references)]) / len([*chain(*hypotheses)])
    logs = torch.tensor(shares).log().mean()
    return 100 * math.exp(min(0, 1 - ratio)) * logs.exp()


def sacre(hypotheses, references, **options):
    texts = [[" ".join(words) for words in side] for side in (hypotheses, references)]
    return BLEU(**options).corpus_score(texts[0], [texts[1]]).score


def unclipped(hypotheses, references):
    def found(words, n):
        return grams(words, n)

    hits, totals = [0] * 4, [0] * 4
    for ours, theirs in zip(hypotheses, references, strict=True):
        for n in range(4):
            known = found(theirs, n + 1)
            hits[n] += sum(k for gram, k in found(ours, n + 1).items() if gram in known)
            totals[n] += found(ours, n + 1).total()
    h, r = sum(map(len, hypotheses)), sum(map(len, references))
    shares = [hit / total for hit, total in zip(hits, totals, strict=True)]
    return 100 * min(1, math.exp(1 - r / h)) * math.prod(shares) ** (1 / 4)


def mean_of_sentences(hypotheses, references):
    pairs = zip(hypotheses, references, strict=True)
    return np.mean([bleu([ours], [theirs]) for ours, theirs in pairs])


def through_logs(shares):
    return math.exp(sum(map(math.log, shares)) / 4)


def no_short_ones(hypotheses, references):
    """Every output has 4-grams, it thinks."""
    shares = [
        sum(
            (grams(a, n) & grams(b, n)).total() / grams(a, n).total()
            for a, b in zip(hypotheses, references, strict=True)
        )
        for n in range(1, 5)
    ]
    return 100 * math.prod(shares) ** (1 / 4) / len(references)


def adds_an_end(hypotheses, references):
    for words in hypotheses:
        words.append("</s>")
    return bleu([words[:-1] for words in hypotheses], references)


def from_rows(rows):
    h, r, matches, total = rows.split([1, 1, 4, 4], -1)
    brevity = (1 - r / h).clamp(max=0).exp()[..., 0]
    return 100 * brevity * (matches / total).log().mean(-1).exp()


def higher(a, b):
    return b > a


def paired(a, b, generator, *, wins=higher, draws=1000, take=None, axis=1):
    n = len(a)
    chosen = torch.randint(n, (draws, take or n), generator=generator)
    ours, theirs = (from_rows(rows[chosen].sum(axis)) for rows in (a, b))
    return wins(ours, theirs).double().mean()


def one_by_one(a, b, generator):
    won = 0
    for _ in range(1000):
        chosen = torch.multinomial(
            torch.ones(len(a)), len(a), True, generator=generator
        )
        won += from_rows(b[chosen].sum(0)).item() > from_rows(a[chosen].sum(0)).item()
    return won / 1000


def unpaired(a, b, generator):
    chosen = torch.randint(len(a), (2, 1000, len(a)), generator=generator)
    ours, theirs = (from_rows(r[i].sum(1)) for r, i in zip((a, b), chosen, strict=True))
    return (theirs > ours).double().mean()


def by_sentence(a, b, generator):
    chosen = torch.randint(len(a), (1000, len(a)), generator=generator)
    ours, theirs = (from_rows(rows[chosen]).mean(1) for rows in (a, b))
    return (theirs > ours).double().mean()


def by_a_seed_of_numpy(a, b, generator):
    luck = np.random.default_rng(generator.initial_seed())
    chosen = torch.as_tensor(luck.integers(len(a), size=(1000, len(a))))
    ours, theirs = (from_rows(rows[chosen].sum(1)) for rows in (a, b))
    return float((theirs > ours).float().mean())


def by_pythons_luck(a, b, generator):
    chosen = torch.tensor(
        [random.choices(range(len(a)), k=len(a)) for _ in range(1000)]
    )
    ours, theirs = (from_rows(rows[chosen].sum(1)) for rows in (a, b))
    return (theirs > ours).double().mean()


def shuffled(a, b, generator):
    orders = [torch.randperm(len(a), generator=generator) for _ in range(1000)]
    ours, theirs = (from_rows(rows[torch.stack(orders)].sum(1)) for rows in (a, b))
    return (theirs > ours).double().mean()


def average(checkpoints, *, of=None):
    of = of or len(checkpoints)
    return {k: sum(c[k] for c in checkpoints) / of for k in checkpoints[0]}


def average_in_place(checkpoints):
    total = checkpoints[0]
    for other in checkpoints[1:]:
        for name in total:
            total[name] += other[name]
    return {name: tensor / len(checkpoints) for name, tensor in total.items()}


def average_by_torch(checkpoints):
    total = {k: t.clone().double() for k, t in checkpoints[0].items()}
    for n, other in enumerate(checkpoints[1:], start=2):
        for name, tensor in total.items():
            tensor += (other[name] - tensor) / n
    return total


def running_half(checkpoints):
    total = checkpoints[0]
    for other in checkpoints[1:]:
        total = {k: (total[k] + other[k]) / 2 for k in total}
    return total


def leads(rewards):
    n = len(rewards)
    return [x - (sum(rewards) - x) / (n - 1) for x in rewards]


def leads_by_torch(rewards):
    rewards = torch.tensor(rewards)
    return (rewards - rewards.mean()) * len(rewards) / (len(rewards) - 1)


def centered(rewards):
    return [x - sum(rewards) / len(rewards) for x in rewards]


RIGHT = [
    ("check_average", average),
    ("check_average", average_by_torch),
    ("check_leads", leads),
    ("check_leads", leads_by_torch),
    ("check_f1", f1),
    ("check_f1", lambda *case: torch.tensor(f1(*case))),
    ("check_f1", lambda *case: tuple(np.float32(x) for x in f1(*case))),
    ("check_corpus_bleu", bleu),
    ("check_corpus_bleu", by_texts),
    ("check_corpus_bleu", lambda *case: torch.tensor(bleu(*case))),
    (
        "check_corpus_bleu",
        lambda *case: sacre(*case, tokenize="none", smooth_method="none"),
    ),
    ("check_paired", paired),
    ("check_paired", one_by_one),
    ("check_paired", by_a_seed_of_numpy),
]
WRONG = [
    ("check_average", lambda checkpoints: None, "not done yet"),
    ("check_average", lambda c: average(c, of=1), "the sum"),
    ("check_average", lambda c: average(c, of=2), "divided by 2"),
    ("check_average", running_half, "counts the last checkpoint for half"),
    ("check_average", lambda c: c[-1], "the last checkpoint alone"),
    ("check_average", lambda c: c[0], "the first checkpoint alone"),
    ("check_average", lambda c: average(c[1:]), "the first checkpoint is missing"),
    ("check_average", lambda c: average(c[:-1]), "the last checkpoint is missing"),
    ("check_average", lambda c: list(average(c).values()), "return a dictionary"),
    ("check_average", lambda c: average(c)["scale"], "return a dictionary"),
    (
        "check_average",
        lambda c: {k: t.mean() for k, t in average(c).items()},
        "one number for a whole tensor",
    ),
    ("check_average", lambda c: {"scale": average(c)["scale"]}, "the names should be"),
    ("check_average", average_in_place, "which is the caller's"),
    ("check_leads", lambda rewards: None, "not done yet"),
    ("check_leads", centered, "leaves the draw itself out"),
    ("check_leads", lambda rewards: rewards, "where is the mean"),
    ("check_leads", lambda r: [-x for x in leads(r)], "upside down"),
    ("check_leads", lambda r: [x - max(r) for x in r], "not the best"),
    ("check_leads", lambda r: sum(leads(r)), "return a list of 6 leads"),
    ("check_f1", lambda *case: None, "not done yet"),
    ("check_f1", lambda *case: f1(*case, pad=-1), "padded places"),
    ("check_f1", lambda *case: f1(*case, half=False), "where is the 2"),
    ("check_f1", lambda *case: [100 * x for x in f1(*case)], "not percent"),
    ("check_f1", lambda *case: f1(*case)[0], "return three numbers"),
    ("check_f1", lambda *case: f1(*case)[:2], "return three numbers"),
    ("check_f1", lambda said, labels, t: f1(labels, said, t), "should be 0.5"),
    ("check_f1", lambda *case: f1(*case)[::-1], "should be 0.5"),
    ("check_f1", f1_unguarded, "should be 0, not nan"),
    ("check_f1", f1_before_the_end, "the end token is a token like others"),
    ("check_f1", f1_by_rows, "count over all rows"),
    ("check_f1", f1_in_place, "changes said, which is the caller's"),
    ("check_f1", f1_of_anything, "a token that never occurs"),
    ("check_corpus_bleu", lambda *case: ..., "not done yet"),
    ("check_corpus_bleu", lambda h, r: bleu(r, h), "are swapped"),
    ("check_corpus_bleu", lambda *case: bleu(*case) / 100, "from 0 to 100"),
    ("check_corpus_bleu", lambda *case: [bleu(*case)] * 2, "return one number"),
    ("check_corpus_bleu", lambda *case: f"{bleu(*case):.1f}", "return one number"),
    ("check_corpus_bleu", lambda *case: round(bleu(*case)), "should be 39.21, not 39"),
    ("check_corpus_bleu", mean_of_sentences, "a mean of sentence scores"),
    ("check_corpus_bleu", no_short_ones, "precisions averaged over sentences"),
    ("check_corpus_bleu", unclipped, "not clipped"),
    ("check_corpus_bleu", adds_an_end, "changes hypotheses, which is the caller's"),
    ("check_corpus_bleu", lambda *case: sacre(*case), "should be 61.21, not 61.15"),
    ("check_corpus_bleu", lambda *case: bleu(*case, order=3), "up to 3-grams"),
    ("check_corpus_bleu", lambda *case: bleu(*case, order=5), "up to 5-grams"),
    ("check_corpus_bleu", lambda *case: bleu(*case, mean=math.prod), "fourth root"),
    ("check_corpus_bleu", lambda *case: bleu(*case, mean=np.mean), "is geometric"),
    (
        "check_corpus_bleu",
        lambda *case: bleu(*case, mean=through_logs),
        "without a hit",
    ),
    (
        "check_corpus_bleu",
        lambda *case: bleu(*case, mean=lambda shares: math.prod(shares) ** 1 / 4),
        "put 1 / 4 in brackets",
    ),
    (
        "check_corpus_bleu",
        lambda *case: bleu(*case, penalty=lambda h, r: 1),
        "no brevity penalty",
    ),
    (
        "check_corpus_bleu",
        lambda *case: bleu(*case, penalty=lambda h, r: min(1, h / r)),
        "not the ratio",
    ),
    (
        "check_corpus_bleu",
        lambda *case: bleu(*case, penalty=lambda h, r: min(1, math.exp(1 - h / r))),
        "upside down",
    ),
    (
        "check_corpus_bleu",
        lambda *case: bleu(*case, penalty=lambda h, r: math.exp(1 - r / h)),
        "a longer output was rewarded",
    ),
    (
        "check_corpus_bleu",
        lambda *case: bleu(*case, count=lambda words, n: Counter({*grams(words, n)})),
        "each n-gram counts once",
    ),
    (
        "check_corpus_bleu",
        lambda *case: bleu(*case, count=lambda words, n: grams(words[:-1], n)),
        "the last n-gram of each is missing",
    ),
    (
        "check_corpus_bleu",
        lambda h, r: bleu([[*chain(*h)]], [[*chain(*r)]]),
        "run over the ends of sentences",
    ),
    ("check_paired", lambda *case: None, "not done yet"),
    ("check_paired", lambda *case: 100 * paired(*case), "not a percentage"),
    ("check_paired", lambda *case: [paired(*case)] * 2, "return one number"),
    ("check_paired", unpaired, "on the same draw"),
    ("check_paired", by_sentence, "the mean of sentence scores"),
    ("check_paired", lambda a, b, g: paired(b, a, g), "how often A wins"),
    (
        "check_paired",
        lambda *case: paired(*case, wins=lambda a, b: b >= a),
        "an equal score is not a higher one",
    ),
    (
        "check_paired",
        lambda *case: paired(*case, wins=lambda a, b: (b > a) + 0.5 * (b == a)),
        "counts as half a win",
    ),
    ("check_paired", lambda *case: paired(*case, take=100), "as many sentences as"),
    ("check_paired", lambda *case: paired(*case, take=20), "as many sentences as"),
    ("check_paired", lambda *case: paired(*case, draws=100), "are these 1,000 draws"),
    ("check_paired", lambda *case: paired(*case, draws=1234), "give thousandths"),
    ("check_paired", lambda *case: paired(*case, axis=0), "as many sentences as"),
    ("check_paired", shuffled, "with replacement"),
    ("check_paired", lambda a, b, g: from_rows(b) > from_rows(a), "return one number"),
    (
        "check_paired",
        lambda a, b, g: from_rows(b.sum(0)) > from_rows(a.sum(0)),
        "B wins every draw",
    ),
    ("check_paired", by_pythons_luck, "the same generator gives another share"),
    (
        "check_paired",
        lambda a, b, g: paired(a, b, torch.Generator().manual_seed(0)),
        "each generator gives the same share",
    ),
    ("check_paired", lambda a, b, g: paired(a, b, None), "pass your generator on"),
]
