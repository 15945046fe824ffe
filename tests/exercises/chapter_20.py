"""Chapter 20: right answers in several styles; wrong ones, and what must be said."""

import numpy as np
import torch


def attention(query, key, d):
    """Projections of both sides, scores, and the mixing of the values."""
    return 2 * (2 * query * d * d + 2 * key * d * d + 2 * query * key * d)


def flops(src, tgt, d_model, d_ff, n_layers, vocab_size):
    """In parts."""
    d, wide = d_model, 2 * 2 * d_model * d_ff
    encoder = attention(src, src, d) + src * wide
    decoder = attention(tgt, tgt, d) + attention(tgt, src, d) + tgt * wide
    return n_layers * (encoder + decoder) + 2 * tgt * d * vocab_size


def per_token(src, tgt, d_model, d_ff, n_layers, vocab_size):
    """By weights, each used once for each token, and what has no weights."""
    own, across = 4 * d_model**2, 2 * d_model**2
    weights = src * (own + across + 2 * d_model * d_ff)
    weights += tgt * (own + across + 2 * d_model * d_ff)
    without = 2 * d_model * (src * src + tgt * tgt + src * tgt)
    return 2 * (n_layers * (weights + without) + tgt * d_model * vocab_size)


def without_cross(src, tgt, d, d_ff, n, vocab):
    return flops(src, tgt, d, d_ff, n, vocab) - n * attention(tgt, src, d)


def from_the_target(src, tgt, d, d_ff, n, vocab):
    return flops(src, tgt, d, d_ff, n, vocab) + 4 * n * d * d * (tgt - src)


def combine(gradients, tokens):
    return sum(n * g for n, g in zip(tokens, gradients, strict=True)) / sum(tokens)


def by_einsum(gradients, tokens):
    weights = torch.tensor(tokens) / sum(tokens)
    return torch.einsum("p,p...->...", weights, torch.stack(gradients))


def in_place(gradients, tokens):
    for gradient, n in zip(gradients, tokens, strict=True):
        gradient *= n
    return torch.stack(gradients).sum(0) / sum(tokens)


def exponent(budgets, sizes):
    x, y = budgets.log(), sizes.log()
    return (y * (x - x.mean())).sum() / (x - x.mean()).square().sum()


def by_numpy(budgets, sizes):
    return np.polyfit(np.log(budgets.numpy()), np.log(sizes.numpy()), 1)[0]


def by_least_squares(budgets, sizes):
    x = budgets.log10()
    columns = torch.stack([x, torch.ones_like(x)], 1)
    return torch.linalg.lstsq(columns, sizes.log10()[:, None]).solution[0].item()


def two_points(budgets, sizes):
    return (sizes[-1] / sizes[0]).log() / (budgets[-1] / budgets[0]).log()


def without_logs(budgets, sizes):
    return np.polyfit(budgets.numpy(), sizes.numpy(), 1)[0]


def through_the_origin(budgets, sizes):
    return (budgets.log() * sizes.log()).sum() / budgets.log().square().sum()


RIGHT = [
    ("check_flops", flops),
    ("check_flops", per_token),
    ("check_flops", lambda *sizes: float(flops(*sizes))),
    ("check_flops", lambda *sizes: torch.tensor(flops(*sizes))),
    ("check_combine", combine),
    ("check_combine", by_einsum),
    ("check_combine", lambda gs, ns: combine([g.double() for g in gs], ns).float()),
    ("check_exponent", exponent),
    ("check_exponent", by_numpy),
    ("check_exponent", by_least_squares),
    ("check_roofline", lambda o, n, p, b: max(o / p, n / b)),
    ("check_roofline", lambda o, n, p, b: o / min(p, o / n * b)),
    ("check_roofline", lambda o, n, p, b: torch.tensor([o / p, n / b]).max()),
]
WRONG = [
    ("check_flops", lambda *sizes: None, "not done yet"),
    ("check_flops", lambda *sizes: flops(*sizes) / 2, "counts as 2"),
    ("check_flops", lambda *sizes: 3 * flops(*sizes), "the forward pass alone"),
    ("check_flops", lambda *sizes: flops(*sizes[:-1], 0), "output layer is missing"),
    ("check_flops", without_cross, "a second attention"),
    ("check_flops", from_the_target, "come from the source"),
    (
        "check_flops",
        lambda s, t, d, f, n, v: flops(s, t, d, f, n, v) - 2 * n * (s + t) * d * f,
        "two matrices",
    ),
    (
        "check_flops",
        lambda s, t, d, f, n, v: (
            flops(s, t, d, f, n, v) - 4 * n * d * (s * s + t * t + s * t)
        ),
        "are products, too",
    ),
    ("check_flops", lambda s, t, d, f, n, v: n * flops(s, t, d, f, 1, v), "once"),
    ("check_flops", lambda *sizes: "many", "return one number"),
    ("check_combine", lambda gs, ns: None, "not done yet"),
    ("check_combine", lambda gs, ns: torch.stack(gs).mean(0), "as much as the others"),
    ("check_combine", lambda gs, ns: torch.stack(gs).sum(0), "a sum of means"),
    ("check_combine", lambda gs, ns: combine(gs, ns) * sum(ns), "labels of all"),
    (
        "check_combine",
        lambda gs, ns: combine(gs, ns) * sum(ns) / len(ns),
        "not by the processes",
    ),
    ("check_combine", lambda gs, ns: torch.stack(gs).sum(0) / sum(ns), "its own"),
    ("check_combine", in_place, "changes gradients, which is the caller's"),
    ("check_combine", lambda gs, ns: gs, "return a tensor"),
    ("check_exponent", lambda b, s: None, "not done yet"),
    ("check_exponent", lambda b, s: exponent(s, b), "the wrong way around"),
    ("check_exponent", without_logs, "a line in log-log"),
    ("check_exponent", lambda b, s: exponent(b, s.exp()), "the sizes, too"),
    ("check_exponent", two_points, "not two"),
    ("check_exponent", through_the_origin, "through the origin"),
    (
        "check_exponent",
        lambda b, s: (s.log().diff() / b.log().diff()).mean(),
        "one line to all points",
    ),
    ("check_exponent", lambda b, s: (b, s), "return one number"),
    ("check_roofline", lambda o, n, p, b: None, "not done yet"),
    ("check_roofline", lambda o, n, p, b: min(o / p, n / b), "the slower"),
    ("check_roofline", lambda o, n, p, b: o / p + n / b, "not the sum"),
    ("check_roofline", lambda o, n, p, b: o / p, "the slower of the two"),
    ("check_roofline", lambda o, n, p, b: n / b, "the slower of the two"),
    ("check_roofline", lambda o, n, p, b: min(p, o / n * b), "return seconds"),
    ("check_roofline", lambda o, n, p, b: max(p / o, b / n), "work over speed"),
    ("check_roofline", lambda o, n, p, b: "seconds", "return one number"),
]
