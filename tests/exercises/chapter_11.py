"""Chapter 11: right answers in several styles; wrong ones, and what must be said."""

import math
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F


def dropout(
    x,
    p,
    training,
    generator,
    *,
    keep=lambda draw, p: draw >= p,
    scale=lambda p: 1 / (1 - p),
    draw=lambda x, g: torch.rand(x.shape, generator=g),
):
    return x * keep(draw(x, generator), p) * scale(p) if training else x


def by_bernoulli(x, p, training, generator):
    if not training:
        return x.clone()
    keep = torch.bernoulli(torch.full_like(x, 1 - p), generator=generator)
    return keep * x / (1 - p)


def one_by_one(x, p, training, generator):
    if not training:
        return x
    draws = [torch.rand(1, generator=generator).item() for _ in range(x.numel())]
    return torch.where(torch.tensor(draws).view(x.shape) < p, 0.0, x / (1 - p))


def in_place(x, p, training, generator):
    if training:
        x[torch.rand(x.shape, generator=generator) < p] = 0
    return x / (1 - p) if training else x


def drops_exactly(x, p, training, generator):
    """Scaled by what stayed."""
    keep = torch.rand(x.shape, generator=generator) >= p
    return x * keep / keep.float().mean() if training else x


def drawn(draw):
    return partial(dropout, draw=draw)


def seeds(x, generator):
    torch.manual_seed(0)
    return torch.rand(x.shape)


def perplexity(logits, labels, **options):
    logits, labels = logits[..., 1:].flatten(0, 1), labels.flatten() - 1
    return F.cross_entropy(logits, labels, ignore_index=-1, **options).exp().item()


def without_padding(logits, labels):
    real, blocked = labels != 0, torch.arange(logits.size(-1)) == 0
    log_q = logits.masked_fill(blocked, -torch.inf)[real].log_softmax(-1)
    return torch.exp(-log_q.gather(1, labels[real][:, None]).mean())


def by_numpy(logits, labels):
    logits, labels = logits.numpy().astype(float)[..., 1:], labels.numpy()
    log_q = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    real = labels > 0
    rows = np.arange(real.sum())
    return np.exp(-np.mean(log_q[real][rows, labels[real] - 1]))


def product_of_roots(logits, labels):
    losses = math.log(perplexity(logits, labels))
    return math.prod([math.exp(losses / 4)] * 4)


def losses(logits, labels, cut=1, axis=-1):
    log_q = logits[..., cut:].log_softmax(axis)
    index = (labels - cut).clamp(min=0)[..., None]
    return -log_q.gather(-1, index)[..., 0]


def of_log_of_softmax(logits, labels):
    real = labels != 0
    q = logits[real][:, 1:].softmax(-1).gather(1, labels[real][:, None] - 1)
    return torch.exp(-q.log().mean())


def blocks_in_place(logits, labels):
    logits[..., 0] = -1e9
    return perplexity(logits, labels)


def unigram(logits, labels, frequency, smoothing):
    real = labels != 0
    z, y = logits[real, 1:], labels[real] - 1
    charge = z.gather(-1, y[:, None])[:, 0] - z @ frequency[1:]
    return F.cross_entropy(z, y, reduction="sum") + smoothing * charge.sum()


def by_target(logits, labels, frequency, smoothing, cut=1, whole=False, rows=True):
    hard = F.one_hot(labels, len(frequency)) * (1 if whole else 1 - smoothing)
    target = hard + smoothing * frequency
    loss = -(target[:, cut:] * logits[:, cut:].log_softmax(-1)).sum(1)
    return loss[labels != 0].sum() if rows else loss.sum()


def by_a_loop(logits, labels, frequency, smoothing):
    total = torch.zeros(())
    for z, y in zip(logits, labels, strict=True):
        log_q = z[1:].log_softmax(-1)
        if y != 0:
            spread = smoothing * (frequency[1:] * log_q).sum()
            total = total - (1 - smoothing) * log_q[y - 1] - spread
    return total


def infinite(logits, *case):
    blocked = torch.arange(logits.size(1)) == 0
    return by_target(logits.masked_fill(blocked, -torch.inf), *case, cut=0)


def charge_of(logits, labels, frequency, smoothing):
    case = logits, labels, frequency
    return unigram(*case, smoothing) - unigram(*case, 0)


def counted(logits, labels, frequency, smoothing):
    real = labels[labels != 0]
    counts = torch.bincount(real, minlength=len(frequency)) / len(real)
    return unigram(logits, labels, counts, smoothing)


def by_pencil(**changes):
    right = {"label": 0.84, "other": 0.04, "gradient": -0.64}
    right |= {"cross_entropy": 1.609, "lead": math.log(21)}
    return lambda: right | changes


RIGHT = [
    ("check_dropout", dropout),
    ("check_dropout", by_bernoulli),
    ("check_dropout", one_by_one),
    ("check_perplexity", perplexity),
    ("check_perplexity", without_padding),
    ("check_perplexity", by_numpy),
    ("check_perplexity", product_of_roots),
    ("check_unigram", unigram),
    ("check_unigram", by_target),
    ("check_unigram", by_a_loop),
    ("check_unigram", lambda *case: unigram(*case)[None]),
    ("check_smoothing_by_pencil", by_pencil()),
    ("check_smoothing_by_pencil", by_pencil(lead=torch.tensor(3.04))),
]
WRONG = [
    ("check_dropout", lambda *case: None, "not done yet"),
    ("check_dropout", lambda x, *rest: x, "nothing was dropped"),
    ("check_dropout", partial(dropout, scale=lambda p: 1), "the mean is not kept"),
    ("check_dropout", partial(dropout, scale=lambda p: 1 - p), "the rest smaller"),
    ("check_dropout", partial(dropout, scale=lambda p: 1 / p), "divided by p instead"),
    ("check_dropout", partial(dropout, scale=lambda p: 1 + p), "times 1 + p"),
    ("check_dropout", partial(dropout, scale=lambda p: 1.25), "should be 2, not 1.25"),
    ("check_dropout", partial(dropout, keep=torch.lt), "the other way round"),
    ("check_dropout", drops_exactly, "not by the share that happened to stay"),
    (
        "check_dropout",
        drawn(lambda x, g: torch.randn(x.shape, generator=g)),
        "not 20 %",
    ),
    ("check_dropout", drawn(lambda x, g: torch.rand_like(x)), "global random state"),
    ("check_dropout", drawn(seeds), "it draws from the global random state"),
    ("check_dropout", drawn(lambda x, g: torch.rand(len(x), 1, generator=g)), "whole"),
    (
        "check_dropout",
        drawn(lambda x, g: torch.rand(x.shape[-2:], generator=g)),
        "along one axis all go at once",
    ),
    (
        "check_dropout",
        drawn(lambda x, g: torch.rand(x.shape, generator=torch.Generator())),
        "another generator, the same mask",
    ),
    ("check_dropout", lambda x, p, t, g: dropout(x, p, True, g), "in evaluation"),
    ("check_dropout", lambda x, p, t, g: dropout(x, 0.2, t, g), "not 50 %"),
    ("check_dropout", lambda *case: dropout(*case).detach(), "no gradient"),
    ("check_dropout", in_place, "changes x, which is the caller's"),
    ("check_perplexity", lambda *case: None, "not done yet"),
    ("check_perplexity", lambda *case: math.log(perplexity(*case)), "that is the loss"),
    ("check_perplexity", lambda *case: losses(*case).exp(), "return one number"),
    ("check_perplexity", lambda *case: losses(*case).mean().exp(), "for the first wo"),
    ("check_perplexity", lambda z, y: losses(z, y, 0).mean().exp(), "positions count"),
    (
        "check_perplexity",
        lambda z, y: losses(z, y, 0)[y != 0].mean().exp(),
        "padding takes part in the softmax",
    ),
    (
        "check_perplexity",
        lambda z, y: losses(z, y, 1, 1)[y != 0].mean().exp(),
        "over the words, not over the positions",
    ),
    ("check_perplexity", lambda z, y: losses(z, y)[y != 0].exp().mean(), "average the"),
    (
        "check_perplexity",
        lambda z, y: (losses(z, y) * (y != 0)).mean().exp(),
        "divided by all positions",
    ),
    ("check_perplexity", partial(perplexity, label_smoothing=0.1), "report the plain"),
    ("check_perplexity", partial(perplexity, reduction="sum"), "divide by the number"),
    ("check_perplexity", lambda *case: perplexity(*case) ** math.log(2), "not 2"),
    ("check_perplexity", lambda *case: 1 / perplexity(*case), "that is 1 / perplexity"),
    (
        "check_perplexity",
        lambda z, y: np.mean([perplexity(z[[i]], y[[i]]) for i in range(len(y))]),
        "each *token* counts the same",
    ),
    ("check_perplexity", lambda z, y: perplexity(z, y * (y != 2)), "the end token is"),
    ("check_perplexity", of_log_of_softmax, "a loss of 130 nats"),
    ("check_perplexity", blocks_in_place, "changes logits"),
    (
        "check_perplexity",
        lambda z, y: F.cross_entropy(z[..., 1:], y - 1, ignore_index=-1),
        "flatten first",
    ),
    (
        "check_perplexity",
        lambda z, y: F.cross_entropy(z[..., 1:].mT, y, ignore_index=0),
        "each label is one lower",
    ),
    ("check_unigram", lambda *case: None, "not done yet"),
    ("check_unigram", lambda z, y, f, s: unigram(z, y, f, s) / 4, "return the sum"),
    ("check_unigram", lambda z, y, f, s: unigram(z, y, (f > 0) / 4, s), "even smooth"),
    ("check_unigram", lambda z, y, f, s: unigram(z, y, f, 0), "there is no smoothing"),
    ("check_unigram", lambda z, y, f, s: unigram(z, y, f, 1 - s), "swapped"),
    ("check_unigram", partial(by_target, cut=0), "padding takes part in the softmax"),
    ("check_unigram", partial(by_target, whole=True), "keeps 1 - smoothing, not 1"),
    ("check_unigram", partial(by_target, rows=False), "count for nothing"),
    ("check_unigram", infinite, "does padding's 0 meet an infinite logarithm?"),
    ("check_unigram", counted, "not the counts of these labels"),
    ("check_unigram", lambda *case: -unigram(*case), "the sign"),
    ("check_unigram", lambda *c: unigram(*c) - 2 * charge_of(*c), "the wrong sign"),
    ("check_unigram", lambda *c: unigram(*c) - charge_of(*c) * 3 / 4, "their mean"),
    ("check_unigram", lambda z, y, f, s: unigram(z, y, f, 1.0), "not yet multiplied"),
    ("check_unigram", lambda z, y, f, s: unigram(z, y, f, 0.3), "loud logits"),
    ("check_unigram", lambda *case: unigram(*case).detach(), "no gradient comes"),
    ("check_smoothing_by_pencil", lambda: None, "not done yet"),
    ("check_smoothing_by_pencil", by_pencil(lead=...), "not done yet"),
    ("check_smoothing_by_pencil", lambda: [0.84, 0.04], "return a dict"),
    ("check_smoothing_by_pencil", lambda: {"label": 0.84}, "other is missing"),
    ("check_smoothing_by_pencil", by_pencil(label=0.8), "has its part of the 0.2"),
    ("check_smoothing_by_pencil", by_pencil(other=0.05), "divide by five"),
    ("check_smoothing_by_pencil", by_pencil(label="a"), "one number, please"),
    ("check_smoothing_by_pencil", by_pencil(cross_entropy=-1.609), "the sign"),
    ("check_smoothing_by_pencil", by_pencil(cross_entropy=0.948), "add the entropy"),
    ("check_smoothing_by_pencil", by_pencil(cross_entropy=0.661), "the entropy of"),
    ("check_smoothing_by_pencil", by_pencil(gradient=0.64), "minus what it should"),
    ("check_smoothing_by_pencil", by_pencil(gradient=-0.8), "is smoothed: not 1"),
    ("check_smoothing_by_pencil", by_pencil(lead=21), "logarithm of the ratio"),
    ("check_smoothing_by_pencil", by_pencil(lead=0.8), "the logarithm of q"),
]
