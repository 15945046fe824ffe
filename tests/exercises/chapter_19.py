"""Chapter 19: right answers in several styles; wrong ones, and what must be said."""

import math
from statistics import fmean, stdev

import torch
import torch.nn.functional as F

T = 0.95 * math.sqrt(2 / (1 - 0.95**2))


def paired(row, base):
    d = row - base
    half = T * d.std() / math.sqrt(len(d))
    return d.mean(), d.mean() - half, d.mean() + half


def in_python(row, base):
    d = [a - b for a, b in zip(row.tolist(), base.tolist(), strict=True)]
    half = T * stdev(d) / math.sqrt(3)
    return [fmean(d), fmean(d) - half, fmean(d) + half]


def with_t(t, correction=1):
    def answer(row, base):
        d = row - base
        half = t * d.std(correction=correction) / math.sqrt(3)
        return d.mean(), d.mean() - half, d.mean() + half

    return answer


def unpaired(row, base):
    half = T * ((row.var() + base.var()) / 3).sqrt()
    mean = row.mean() - base.mean()
    return mean, mean - half, mean + half


def fair(tuning, fresh):
    return fresh[tuning.mean(1).argmin()].mean()


def by_sorting(tuning, fresh):
    means = [fmean(row) for row in tuning.tolist()]
    return fmean(fresh[sorted(range(len(means)), key=means.__getitem__)[0]].tolist())


def gated(x, gate, value, narrow):
    return (F.gelu(x @ gate) * (x @ value)) @ narrow


def gated_by_hand(x, gate, value, narrow):
    """One product for both halves, and GELU written out."""
    g, v = (x @ torch.cat([gate, value], 1)).chunk(2, -1)
    g = g * (1 + torch.erf(g / math.sqrt(2))) / 2
    return torch.einsum("...h,hd->...d", g * v, narrow)


RIGHT = [
    ("check_gate", gated),
    ("check_gate", gated_by_hand),
    ("check_seeds", paired),
    ("check_seeds", in_python),
    ("check_seeds", lambda *case: torch.stack(paired(*case))),
    ("check_fair", fair),
    ("check_fair", by_sorting),
    ("check_fair", lambda *case: fair(*case).item()),
]
WRONG = [
    ("check_gate", lambda *parts: None, "not done yet"),
    ("check_gate", lambda x, g, v, n: gated(x, v, g, n), "not the value"),
    (
        "check_gate",
        lambda x, g, v, n: F.gelu(x @ g * (x @ v)) @ n,
        "before the product",
    ),
    ("check_gate", lambda x, g, v, n: (x @ g).relu() * (x @ v) @ n, "GELU, not ReLU"),
    ("check_gate", lambda x, g, v, n: F.gelu(x @ g) @ n, "the value is missing"),
    ("check_gate", lambda x, g, v, n: (F.gelu(x @ g) + x @ v) @ n, "it doesn't add"),
    ("check_gate", lambda x, g, v, n: F.gelu(x @ g) * (x @ v), "narrow it at the end"),
    ("check_seeds", lambda row, base: None, "not done yet"),
    ("check_seeds", lambda row, base: paired(base, row), "the wrong way around"),
    ("check_seeds", with_t(1.96), "1.96 is for many numbers"),
    ("check_seeds", with_t(1.0), "t times as wide"),
    ("check_seeds", with_t(T * math.sqrt(3)), "divide by sqrt(n)"),
    ("check_seeds", with_t(T / math.sqrt(3)), "divide by sqrt(n), not by n"),
    ("check_seeds", with_t(T, correction=0), "correction=1"),
    ("check_seeds", unpaired, "subtract seed by seed first"),
    ("check_seeds", lambda row, base: paired(row, 0 * base), "subtract the base's"),
    ("check_seeds", lambda *c: paired(*c)[1:], "the mean comes first"),
    ("check_seeds", lambda *c: [in_python(*c)[i] for i in (1, 0, 2)], "mean comes"),
    ("check_seeds", lambda *c: [in_python(*c)[i] for i in (0, 2, 1)], "lower end"),
    ("check_seeds", lambda row, base: 3.0, "return three numbers"),
    ("check_fair", lambda tuning, fresh: None, "not done yet"),
    ("check_fair", lambda tuning, fresh: fresh.mean(1).min(), "the test split chose"),
    ("check_fair", lambda tuning, fresh: fresh.min(), "best single run of all"),
    ("check_fair", lambda t, f: f[t.amin(1).argmin()].mean(), "best single run chose"),
    ("check_fair", lambda t, f: t.mean(1).min(), "the fresh seeds report"),
    ("check_fair", lambda t, f: f[t.mean(1).argmax()].mean(), "when it is low"),
    ("check_fair", lambda t, f: f[t.mean(1).argmin()].min(), "not the best"),
    ("check_fair", lambda t, f: t.mean(1).argmin(), "look up its losses"),
    ("check_fair", lambda t, f: f[t.mean(1).argmin()], "return one number"),
]
