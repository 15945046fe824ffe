"""Chapter 05: right answers in several styles; wrong ones, and what must be said."""

import math

import torch
import torch.nn.functional as F
from torch import nn


def feed_forward(x, W1, b1, W2, b2):
    return (x @ W1 + b1).clamp(min=0) @ W2 + b2


def by_einsum(x, W1, b1, W2, b2):
    hidden = torch.einsum("bnd,dh->bnh", x, W1) + b1
    return torch.einsum("bnh,hd->bnd", torch.where(hidden > 0, hidden, 0.0), W2) + b2


def biases_in_place(x, W1, b1, W2, b2):
    b1 += 0.1
    return feed_forward(x, W1, b1 - 0.1, W2, b2)


def gradient(ids, upstream, vocab_size):
    d_model = upstream.size(-1)
    values = upstream.flatten(0, 1) * math.sqrt(d_model)
    return torch.zeros(vocab_size, d_model).index_add_(0, ids.flatten(), values)


def by_index_put(ids, upstream, vocab_size):
    out = upstream.new_zeros(vocab_size, upstream.size(-1))
    return out.index_put((ids,), upstream * upstream.size(-1) ** 0.5, accumulate=True)


def written_over(ids, upstream, vocab_size):
    out = torch.zeros(vocab_size, upstream.size(-1))
    out[ids] += upstream * math.sqrt(upstream.size(-1))
    return out


def scales_upstream(ids, upstream, vocab_size):
    upstream *= math.sqrt(upstream.size(-1))
    return gradient(ids, upstream / math.sqrt(upstream.size(-1)), vocab_size)


def embed(ids, E):
    return F.embedding(ids, E) * math.sqrt(E.size(1))


def by_one_hot(ids, E):
    return F.one_hot(ids, len(E)).float() @ E * E.size(1) ** 0.5


def logits(features, E):
    return features @ E.T


def tie(model):
    model.target.weight = model.source.weight
    model.output.weight = model.source.weight


def one_module(model):
    model.target = model.source
    model.output.weight = model.source.weight


def new_parameter(model):
    one = nn.Parameter(model.source.weight.detach().clone())
    for part in (model.source, model.target, model.output):
        part.weight = one


def same_data(model):
    model.output.weight.data = model.source.weight.data


def copied(model):
    model.output.weight = nn.Parameter(model.source.weight.detach().clone())


def copied_numbers(model):
    model.output.weight.data.copy_(model.source.weight.data)


def in_the_wrong_order(model):  # on a model that has been through them it works
    model.output.weight = model.target.weight
    model.target.weight = model.source.weight


def wrong_way(model):
    model.source.weight = model.target.weight = model.output.weight


def with_bias(model):
    model.output = nn.Linear(*model.output.weight.shape[::-1])
    model.output.weight = model.source.weight


def frozen(model):
    tie(model)
    model.source.weight.requires_grad_(False)


def gated(x, gate, up, down):
    return (F.silu(x @ gate) * (x @ up)) @ down


def by_hand(x, gate, up, down):
    a, b = (x @ torch.cat([gate, up], 1)).chunk(2, -1)
    return torch.einsum("bnh,hd->bnd", a * torch.sigmoid(a) * b, down)


def hidden(d_ff):
    return 2 * d_ff // 3


RIGHT = [
    ("check_feed_forward", feed_forward),
    ("check_feed_forward", by_einsum),
    ("check_gradient", gradient),
    ("check_gradient", by_index_put),
    ("check_in_and_out", (embed, logits)),
    ("check_in_and_out", (by_one_hot, F.linear)),
    ("check_in_and_out", (embed, lambda f, E: torch.einsum("bld,vd->blv", f, E))),
    ("check_push", {"logits": [1 / 8, -6 / 8, 5 / 8], "row": [-3, 6]}),
    ("check_push", {"logits": (0.125, -0.75, 0.625), "row": (-3.0, 6.0)}),
    ("check_tie", tie),
    ("check_tie", one_module),
    ("check_tie", new_parameter),
    ("check_gated", (gated, hidden)),
    ("check_gated", (by_hand, lambda d_ff: torch.tensor(d_ff * 2 // 3))),
    ("check_gated", (by_hand, lambda d_ff: math.floor(d_ff / 1.5))),
]
WRONG = [
    ("check_feed_forward", lambda *case: None, "not done yet"),
    ("check_feed_forward", lambda *case: F.relu(feed_forward(*case)), "one max only"),
    ("check_feed_forward", lambda x, W1, b1, W2, b2: x @ W1.T, "W1 first, without a"),
    (
        "check_feed_forward",
        lambda x, W1, b1, W2, b2: (x @ W1 + b1) @ W2 + b2,
        "there is no bend",
    ),
    (
        "check_feed_forward",
        lambda x, W1, b1, W2, b2: max(0, x @ W1 + b1) @ W2 + b2,
        "does your max take each number alone",
    ),
    (
        "check_feed_forward",
        lambda x, W1, b1, W2, b2: (F.relu(x @ W1) + b1) @ W2 + b2,
        "b1 comes before the max, not after",
    ),
    (
        "check_feed_forward",
        lambda x, W1, b1, W2, b2: feed_forward(x, W1, 0 * b1, W2, b2),
        "is b1 forgotten?",
    ),
    (
        "check_feed_forward",
        lambda x, W1, b1, W2, b2: (x @ W1 + b1).clamp(0, 60) @ W2 + b2,
        "x a hundred times as large",
    ),
    ("check_feed_forward", lambda *case: feed_forward(*case).detach(), "no gradient"),
    ("check_feed_forward", biases_in_place, "changes b1, which is the caller's"),
    ("check_gradient", written_over, "tokens 1 and 2 occur twice"),
    ("check_gradient", scales_upstream, "changes upstream, which is the caller's"),
    ("check_gradient", lambda i, u, v: gradient(i, u, v) / 5, "not divided"),
    ("check_gradient", lambda i, u, v: gradient(i, u, v)[:6], "should be (7, 5)"),
    ("check_gradient", lambda i, u, v: gradient(i, u, 7), "index 9 is out of bounds"),
    (
        "check_gradient",
        lambda i, u, v: gradient(i, u, v) * math.sqrt(5 / u.size(-1)),
        "600 tokens, 512 rows",
    ),
    ("check_in_and_out", (lambda ids, E: None, logits), "not done yet"),
    ("check_in_and_out", (embed, lambda f, E: None), "my_logits: not done yet"),
    ("check_in_and_out", (lambda ids, E: E[ids], logits), "the factor is missing"),
    (
        "check_in_and_out",
        (lambda ids, E: E[ids] * len(E) ** 0.5, logits),
        "not of the vocabulary's size",
    ),
    ("check_in_and_out", (lambda ids, E: E[ids] * 5**0.5, logits), "d_model = 16"),
    ("check_in_and_out", (embed, lambda f, E: f @ E), "the last axes don't fit"),
    (
        "check_in_and_out",
        (embed, lambda f, E: f @ E.T * E.size(1) ** 0.5),
        "no factor on the way out",
    ),
    (
        "check_in_and_out",
        (embed, lambda f, E: (f @ E.T).softmax(-1)),
        "softmax of the logits",
    ),
    (
        "check_in_and_out",
        (lambda ids, E: embed(ids, E).detach(), logits),
        "my_embed: ",
    ),
    ("check_push", {"logits": [None] * 3, "row": [None] * 2}, "not done yet"),
    ("check_push", {"logits": [1 / 8, 2 / 8, 5 / 8], "row": [1, -2]}, "subtract y"),
    ("check_push", {"logits": [-1 / 8, 6 / 8, -5 / 8], "row": [3, -6]}, "y - p"),
    ("check_push", {"logits": [1 / 8, -6 / 8, 5 / 8], "row": [3, -6]}, "which sign"),
    ("check_push", {"logits": [1 / 8, -6 / 8], "row": [-3, 6]}, "three numbers"),
    ("check_push", {"logits": [1, 2, 3]}, "keep both names"),
    ("check_push", {"logits": 3, "row": [-3, 6]}, "three numbers are needed"),
    ("check_push", {"logits": ["p", 1, 2], "row": [-3, 6]}, "one number, not a str"),
    ("check_tie", lambda model: None, "not done yet: the output still has"),
    ("check_tie", in_the_wrong_order, "the output still has the target's first"),
    ("check_tie", same_data, "one memory, but several Parameters"),
    ("check_tie", copied, "equal numbers in different places"),
    ("check_tie", copied_numbers, "equal numbers in different places"),
    ("check_tie", wrong_way, "not with the numbers of source"),
    ("check_tie", with_bias, "40 parameters, not 32"),
    ("check_tie", frozen, "a matrix gets no gradient any more"),
    ("check_gated", (lambda *case: None, hidden), "not done yet"),
    ("check_gated", (gated, lambda d_ff: None), "my_hidden: not done yet"),
    ("check_gated", (lambda x, g, u, d: gated(x, u, g, d), hidden), "not on up"),
    ("check_gated", (lambda x, g, u, d: gated(x, g, g, d), hidden), "should be"),
    (
        "check_gated",
        (lambda x, g, u, d: (x @ g) * (x @ u) @ d, hidden),
        "where is SiLU",
    ),
    ("check_gated", (lambda x, g, u, d: F.silu(x @ g) * (x @ u), hidden), "last step?"),
    ("check_gated", (lambda *case: gated(*case).detach(), hidden), "no gradient"),
    ("check_gated", (gated, lambda d_ff: d_ff), "half as much again"),
    ("check_gated", (gated, lambda d_ff: d_ff * 2 / 3), "whole numbers"),
    ("check_gated", (gated, lambda d_ff: -(-2 * d_ff // 3)), "rounded up"),
    ("check_gated", (gated, lambda d_ff: 1365), "should be 666, not 1365"),
]
