"""Chapter 04: right answers in several styles; wrong ones, and what must be said."""

import math

import torch
import torch.nn.functional as F


def split_test(split, heads=3):
    x = torch.arange(2 * 5 * 21).view(2, 5, 21)
    found = split(x, heads)
    if found.shape != (2, 3, 5, 7):
        return False
    blocks = (x[:, :, 7 * i : 7 * i + 7] for i in range(3))
    return all(torch.equal(found[:, i], block) for i, block in enumerate(blocks))


def split_test_by_assertions(split):
    x = torch.randn(2, 5, 21)
    heads = split(x, 3)
    assert heads.shape == (2, 3, 5, 7)
    return (heads.transpose(1, 2).flatten(2) == x).all()


def returns_none_for_wrong_ones(split):
    if split_test_by_assertions(split):
        return True


def looks_at_the_shape(split):
    return split(torch.randn(2, 5, 21), 3).shape == (2, 3, 5, 7)


def square(split):
    x = torch.arange(9 * 4).view(1, 2, 18)
    return torch.equal(split(x, 2)[0, 0], x[0, :, :9])


def einsum(x, w_q, w_k, w_v, w_o, *, scale=True, last="bhiv,hvd->bid", axis=-1):
    query, key = (torch.einsum("bnd,hdk->bhnk", x, w) for w in (w_q, w_k))
    scores = torch.einsum("bhik,bhjk->bhij", query, key)
    weights = (scores / math.sqrt(w_q.size(-1)) if scale else scores).softmax(axis)
    heads = torch.einsum("bhij,bjd,hdv->bhiv", weights, x, w_v)
    return torch.einsum(last, heads, w_o)


def by_a_loop(x, *weights):
    out = torch.zeros_like(x)
    for w_q, w_k, w_v, w_o in zip(*weights, strict=True):
        out = out + F.scaled_dot_product_attention(x @ w_q, x @ w_k, x @ w_v) @ w_o
    return out


def scales_in_place(x, w_q, *others):
    w_q /= math.sqrt(w_q.size(-1))
    return einsum(x, w_q, *others, scale=False)


def grouped(query, key, value):
    members = query.size(1) // key.size(1)
    query = query.unflatten(1, (-1, members))  # (batch, group, member, query, d_k)
    scores = query @ key.unsqueeze(2).mT / math.sqrt(query.size(-1))
    return (scores.softmax(-1) @ value.unsqueeze(2)).flatten(1, 2)


def repeated(query, key, value, members=None):
    members = members or query.size(1) // key.size(1)
    parts = (part.repeat_interleave(members, 1) for part in (key, value))
    return F.scaled_dot_product_attention(query, *parts)


def tiled(query, key, value):
    members = query.size(1) // key.size(1)
    parts = (part.repeat(1, members, 1, 1) for part in (key, value))
    return F.scaled_dot_product_attention(query, *parts)


def job(weights, least=0.55):
    found = {
        "previous": weights.diagonal(-1).mean(),
        "next": weights.diagonal(1).mean(),
        "itself": weights.diagonal().mean(),
        "first": weights[1:, 0].mean(),
    }
    best = max(found, key=found.get)
    return best if found[best] > least else "spread"


def by_distance(weights):
    """The template that is nearest."""
    n = len(weights)
    wanted = {
        "previous": torch.eye(n).roll(-1, 1),
        "next": torch.eye(n).roll(1, 1),
        "itself": torch.eye(n),
        "first": torch.eye(n)[0].expand(n, n),
        "spread": torch.full((n, n), 1 / n),
    }
    return min(wanted, key=lambda name: (weights - wanted[name])[1:-1].norm())


RIGHT = [
    ("check_split_test", split_test),
    ("check_split_test", split_test_by_assertions),
    ("check_einsum", einsum),
    ("check_einsum", by_a_loop),
    ("check_grouped", grouped),
    ("check_grouped", repeated),
    (
        "check_grouped",
        lambda *case: F.scaled_dot_product_attention(*case, enable_gqa=True),
    ),
    ("check_job", job),
    ("check_job", by_distance),
]
WRONG = [
    ("check_split_test", looks_at_the_shape, "slipped through: view without the tr"),
    ("check_split_test", square, "slipped through"),
    ("check_split_test", lambda split: True, "lets every split through"),
    ("check_split_test", lambda split: False, "rejects the right function of section"),
    ("check_split_test", lambda split: None, "not done yet, or no return"),
    ("check_split_test", lambda split: 1 / 0, "fails on the right function: Zero"),
    ("check_split_test", lambda split: "yes", "return True or False, not str"),
    ("check_split_test", returns_none_for_wrong_ones, "None for a wrong split"),
    ("check_einsum", lambda *case: einsum(*case, scale=False), "there is no scale"),
    ("check_einsum", lambda *case: einsum(*case, last="bhiv,hvd->bhid"), "is `h` stil"),
    ("check_einsum", lambda *case: einsum(*case, axis=1), "runs over the heads"),
    ("check_einsum", lambda *case: einsum(*case, axis=2), "over the keys, the last"),
    ("check_einsum", lambda *case: einsum(*case) / 3, "the heads are averaged"),
    ("check_einsum", lambda x, q, k, *vo: einsum(x, q, q, *vo), "keys made by w_q"),
    ("check_einsum", lambda x, q, *rest: einsum(x, 3 * q, *rest), "should be"),
    ("check_einsum", lambda *case: einsum(*case).detach(), "no gradient comes through"),
    ("check_einsum", lambda *case: (einsum(*case), 1), "the output only"),
    ("check_einsum", scales_in_place, "changes w_q, which is the caller's"),
    ("check_grouped", tiled, "repeat_interleave, not repeat"),
    ("check_grouped", lambda *case: repeated(*case, 3), "number read from the key"),
    ("check_grouped", lambda q, k, v: grouped(2 * q, k, v), "there is no scale"),
    ("check_grouped", lambda q, k, v: repeated(q, k[:, :1], v[:, :1]), "group 0"),
    ("check_grouped", lambda *case: repeated(*case).data, "no gradient comes through"),
    ("check_job", lambda weights: job(weights.T), "previous and next have changed pl"),
    ("check_job", lambda weights: job(weights, 0), "more than by chance"),
    ("check_job", lambda weights: "first", "your answer is always 'first'"),
    ("check_job", lambda weights: job(weights).upper(), "return one of the words"),
    (
        "check_job",
        lambda weights: job(weights).replace("itself", "spread"),
        "one job is never found: 'itself'",
    ),
    (
        "check_job",
        lambda weights: job(weights) if len(weights) != 12 else "spread",
        "wrong for sentences of [12] words only",
    ),
]
