"""Chapter 07: right answers in several styles; wrong ones, and what must be said."""

import torch
import torch.nn.functional as F
from torch import nn


def mean(x):
    return x.mean(-1, keepdim=True)


def rms_norm(x, gain, eps=1e-5):
    return gain * x / (mean(x**2) + eps).sqrt()


def by_einsum(a, b):
    size = torch.einsum("...d,...d->...", a, a) / a.shape[-1]
    return torch.einsum("...d,d,...->...d", a, b, torch.rsqrt(size + 1e-5))


def word_by_word(x, gain):
    words = [gain * v / torch.sqrt(v @ v / len(v) + 1e-5) for v in x.flatten(0, -2)]
    return torch.stack(words).view(x.shape)


def by_module(x, gain):
    module = nn.RMSNorm(x.shape[-1], eps=1e-5)
    return torch.func.functional_call(module, {"weight": gain}, (x,))


def in_double(x, gain):
    return rms_norm(x.double(), gain.double())


def in_place(x, gain):
    x /= (mean(x**2) + 1e-5).sqrt()
    return gain * x


def block(norm, dropout, x, sublayer):
    return x + dropout(sublayer(norm(x)))


def step_by_step(n, d, x, s):
    y = x.clone()
    y += d(s(n(x)))
    return y


def adds_in_place(norm, dropout, x, sublayer):
    x += dropout(sublayer(norm(x)))
    return x


def asks_twice(norm, dropout, x, sublayer):
    return block(norm, dropout, x, lambda z: (sublayer(z) + sublayer(z)) / 2)


def backward(y, sigma, gain, upstream):
    g = upstream * gain
    return (g - mean(g) - y * mean(g * y)) / sigma


def by_jacobian(y, sigma, gain, upstream):
    if y.numel() > 10_000:
        return backward(y, sigma, gain, upstream)
    d = y.shape[-1]
    jacobian = torch.eye(d) - 1 / d - y[..., None] * y[..., None, :] / d
    return ((upstream * gain)[..., None, :] @ jacobian)[..., 0, :] / sigma


def by_autograd(y, sigma, gain, upstream):
    x = (y * sigma).requires_grad_()
    output = F.layer_norm(x, x.shape[-1:], gain)
    return torch.autograd.grad(output, x, upstream)[0]


def upstream_in_place(y, sigma, gain, upstream):
    upstream *= gain
    return backward(y, sigma, torch.ones_like(gain), upstream)


def g_times(y, sigma, gain, upstream):
    return gain * backward(y, sigma, gain, upstream)


def with_sums_over_5(y, sigma, gain, upstream):
    g = upstream * gain
    sums = g.sum(-1, keepdim=True) + y * (g * y).sum(-1, keepdim=True)
    return (g - sums / 5) / sigma


RIGHT = [
    ("check_rms_norm", rms_norm),
    ("check_rms_norm", by_einsum),
    ("check_rms_norm", word_by_word),
    ("check_rms_norm", by_module),
    ("check_rms_norm", in_double),
    ("check_block", block),
    ("check_block", step_by_step),
    ("check_norm_backward", backward),
    ("check_norm_backward", by_jacobian),
    ("check_norm_backward", by_autograd),
]
WRONG = [
    ("check_rms_norm", lambda x, gain: None, "not done yet"),
    ("check_rms_norm", lambda x, g: rms_norm(x - mean(x), g), "that is layer norm"),
    ("check_rms_norm", lambda x, g: g * x / (x**2).mean(-1).sqrt(), "keepdim"),
    (
        "check_rms_norm",
        lambda x, g: g * x / x.std(-1, keepdim=True),
        "standard deviation",
    ),
    ("check_rms_norm", lambda x, g: g * F.normalize(x, dim=-1), "root of the sum"),
    ("check_rms_norm", lambda x, g: g * x / (x**2).mean().sqrt(), "one size for all"),
    ("check_rms_norm", lambda x, g: g * x / mean(x**2).sqrt(), "where is eps"),
    (
        "check_rms_norm",
        lambda x, g: g * x / (mean(x**2).sqrt() + 1e-5),
        "is your eps (1e-5) inside the root?",
    ),
    ("check_rms_norm", lambda x, g: rms_norm(x, g, 1e-6), "eps is 1e-5"),
    ("check_rms_norm", lambda x, g: nn.RMSNorm(x.shape[-1], 1e-5)(x), "gain is forgot"),
    ("check_rms_norm", lambda x, g: g * (x**2 / mean(x**2)).sqrt(), "the sign of x"),
    ("check_rms_norm", lambda x, g: 2 * rms_norm(x, g), "all numbers are 2 times"),
    (
        "check_rms_norm",
        lambda x, g: g * x / ((x**2).sum(-1, True) / 5 + 1e-5).sqrt(),
        "two axes",
    ),
    ("check_rms_norm", lambda x, g: rms_norm(x, g) / (mean(x**2) > 0), "all zeros"),
    ("check_rms_norm", in_place, "changes x, which is the caller's"),
    ("check_rms_norm", lambda x, g: rms_norm(x, g.data), "no gradient for g comes"),
    (
        "check_rms_norm",
        lambda x, g: g * x / (mean(x.detach() ** 2) + 1e-5).sqrt(),
        "the gradient of x is not",
    ),
    ("check_rms_norm", lambda x, g: rms_norm(x, g).detach().numpy(), "return a tensor"),
    ("check_block", lambda *parts: None, "not done yet"),
    ("check_block", lambda n, d, x, s: d(n(x) + s(n(x))), "nothing is repaired yet"),
    ("check_block", lambda n, d, x, s: d(x + s(n(x))), "it tears holes into x"),
    ("check_block", lambda n, d, x, s: block(n, d, n(x), s), "should be"),
    ("check_block", lambda n, d, x, s: n(x) + d(s(n(x))), "goes through the norm"),
    ("check_block", lambda n, d, x, s: x + d(s(x)), "without its norm"),
    ("check_block", lambda n, d, x, s: n(x + d(s(x))), "that is post-norm"),
    ("check_block", lambda n, d, x, s: x + s(n(x)), "dropout is gone"),
    ("check_block", lambda n, d, x, s: x + s(d(n(x))), "behind the sub-layer"),
    ("check_block", lambda n, d, x, s: x + d(n(x)), "is called 0 times, not once"),
    ("check_block", lambda n, d, x, s: x + d(s(n(n(x)))), "should be"),
    ("check_block", asks_twice, "is called 2 times"),
    ("check_block", adds_in_place, "changes x, which is the caller's"),
    ("check_block", lambda n, d, x, s: block(n, d, x.clamp(-9, 9), s), "a hundred"),
    ("check_block", lambda n, d, x, s: x.detach() + d(s(n(x))), "the gradient of x"),
    ("check_norm_backward", lambda *case: None, "not done yet"),
    ("check_norm_backward", lambda y, s, g, up: up * g / s, "only the first term"),
    (
        "check_norm_backward",
        lambda y, s, g, up: (up * g - mean(up * g)) / s,
        "the term with y is missing",
    ),
    (
        "check_norm_backward",
        lambda y, s, g, up: backward(y, s, torch.ones_like(g), up),
        "past the gain",
    ),
    ("check_norm_backward", g_times, "not once more"),
    (
        "check_norm_backward",
        lambda y, s, g, up: backward(y, s, 1 / g, up),
        "times the gain, not over it",
    ),
    (
        "check_norm_backward",
        lambda y, s, g, up: backward(y, s * s, g, up),
        "by it once",
    ),
    ("check_norm_backward", lambda y, s, g, up: backward(y, 1, g, up), "by sigma at"),
    ("check_norm_backward", lambda *case: -backward(*case), "the sign"),
    ("check_norm_backward", lambda *case: backward(*case)[..., :1], "the shape should"),
    (
        "check_norm_backward",
        lambda y, s, g, up: (up * g - (up * g).mean(-1)) / s,
        "keepdim",
    ),
    (
        "check_norm_backward",
        lambda y, s, g, up: backward(y, (s * s - 1e-5).sqrt(), g, up),
        "x as small as 0.01",
    ),
    ("check_norm_backward", with_sums_over_5, "a single word"),
    ("check_norm_backward", upstream_in_place, "changes upstream, which is"),
]
