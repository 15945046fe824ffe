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


def post_norm(norm, dropout, x, sublayer):
    return norm(x + dropout(sublayer(x)))


def post_in_steps(n, d, x, s):
    total = x.clone()
    total += d(s(x))
    return n(total)


def two_orders(**changes):
    right = {
        "post_triple": [-1, -1, 1, 1],
        "pre_triple": [0, 0, 10, 10],
        "post_minus": [0, 0, 0, 0],
        "pre_minus": [4, 4, 6, 6],
    }
    return lambda: right | changes


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
    ("check_post_norm", post_norm),
    ("check_post_norm", post_in_steps),
    ("check_two_orders", two_orders()),
    ("check_two_orders", two_orders(post_minus=torch.zeros(4))),
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
    ("check_post_norm", lambda *parts: None, "not done yet"),
    ("check_post_norm", lambda n, d, x, s: n(x + s(x)), "dropout is missing"),
    ("check_post_norm", lambda n, d, x, s: x + d(s(x)), "where is the norm"),
    ("check_post_norm", lambda n, d, x, s: n(d(s(x))), "where is the addition"),
    ("check_post_norm", lambda n, d, x, s: n(d(x + s(x))), "not on the sum"),
    ("check_post_norm", lambda n, d, x, s: d(n(x + s(x))), "not on the result"),
    ("check_post_norm", lambda n, d, x, s: n(x + s(d(x))), "not on what goes in"),
    ("check_post_norm", block, "that is pre-norm"),
    ("check_post_norm", lambda n, d, x, s: x + n(d(s(x))), "around the whole sum"),
    ("check_post_norm", lambda n, d, x, s: n(block(n, d, x, s)), "too many"),
    ("check_post_norm", lambda n, d, x, s: n(x + d(x)), "called 0 times"),
    ("check_post_norm", lambda n, d, x, s: n(x.detach() + d(s(x))), "gradient of x"),
    ("check_post_norm", lambda n, d, x, s: n(x.clamp(-9, 9) + d(s(x))), "a hundred"),
    ("check_two_orders", lambda: None, "not done yet"),
    ("check_two_orders", two_orders(pre_minus=...), "not done yet"),
    ("check_two_orders", lambda: [1, 2, 3, 4], "return a dict"),
    ("check_two_orders", lambda: {"post_triple": [-1, -1, 1, 1]}, "is missing"),
    ("check_two_orders", two_orders(post_triple=[12, 12, 28, 28]), "comes last"),
    ("check_two_orders", two_orders(post_triple=[0, 0, 10, 10]), "that is pre-norm"),
    ("check_two_orders", two_orders(post_triple=[-0.5, -0.5, 0.5, 0.5]), "variance"),
    ("check_two_orders", two_orders(pre_triple=[-3, -3, 3, 3]), "still to be added"),
    ("check_two_orders", two_orders(pre_triple=[12, 12, 28, 28]), "normalized x"),
    ("check_two_orders", two_orders(pre_triple=[-1, -1, 1, 1]), "that is post-norm"),
    ("check_two_orders", two_orders(post_minus=[1, 1, -1, -1]), "0 everywhere"),
    ("check_two_orders", two_orders(pre_minus=[4, 4, 6]), "the shape should be"),
    ("check_two_orders", two_orders(pre_minus=["a"]), "four numbers"),
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
