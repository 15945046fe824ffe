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


def multi_head(query, key, value, w_q, w_k, w_v, w_o, n_heads):
    def cut(x, w):
        return (x @ w).unflatten(-1, (n_heads, -1)).transpose(1, 2)

    heads = F.scaled_dot_product_attention(
        cut(query, w_q), cut(key, w_k), cut(value, w_v)
    )
    return heads.transpose(1, 2).flatten(-2) @ w_o


def head_after_head(query, key, value, w_q, w_k, w_v, w_o, n_heads):
    bands = (w.chunk(n_heads, -1) for w in (w_q, w_k, w_v))
    heads = [
        F.scaled_dot_product_attention(query @ q, key @ k, value @ v)
        for q, k, v in zip(*bands, strict=True)
    ]
    return torch.cat(heads, -1) @ w_o


def views_alone(query, key, value, w_q, w_k, w_v, w_o, n_heads):
    def cut(x):
        return x.reshape(x.size(0), n_heads, x.size(1), -1)

    heads = F.scaled_dot_product_attention(
        cut(query @ w_q), cut(key @ w_k), cut(value @ w_v)
    )
    return heads.reshape(query.shape[:2] + w_o.shape[:1]) @ w_o


def no_transpose_back(query, key, value, w_q, w_k, w_v, w_o, n_heads):
    unit = torch.eye(len(w_o))
    merged = multi_head(query, key, value, w_q, w_k, w_v, unit, n_heads)
    heads = merged.unflatten(-1, (n_heads, -1)).transpose(1, 2)
    return heads.reshape(merged.shape) @ w_o


def job(weights, least=0.55, first=None):
    found = {
        "previous": weights.diagonal(-1).mean(),
        "next": weights.diagonal(1).mean(),
        "itself": weights.diagonal().mean(),
        "first": weights[1:, 0].mean() if first is None else first,
    }
    best = max(found, key=found.get)
    return best if found[best] > least else "spread"


def names_swapped(weights):
    names = {"previous": "next", "next": "previous"}
    return names.get(job(weights), job(weights))


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
    ("check_multi_head", multi_head),
    ("check_multi_head", head_after_head),
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
    ("check_multi_head", lambda *case: multi_head(*case[:-1], 1), "one head of full"),
    ("check_multi_head", views_alone, "view without the transpose"),
    ("check_multi_head", no_transpose_back, "the way back lacks its transpose"),
    (
        "check_multi_head",
        lambda q, k, v, *rest: multi_head(q, k, k, *rest),
        "the values are made from the key",
    ),
    (
        "check_multi_head",
        lambda q, k, v, *rest: multi_head(q, q, q, *rest),
        "keys and values are made from the query",
    ),
    (
        "check_multi_head",
        lambda *case: multi_head(*case[:6], torch.eye(12), case[-1]),
        "where is w_o?",
    ),
    (
        "check_multi_head",
        lambda *case: multi_head(*case[:3], *(w.T for w in case[3:7]), case[-1]),
        "x @ w, not x @ w.T",
    ),
    ("check_multi_head", lambda *case: multi_head(*case).mT, "the shape should be"),
    ("check_multi_head", lambda *case: multi_head(*case).data, "no gradient comes"),
    ("check_multi_head", lambda *case: None, "not done yet"),
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
    ("check_job", lambda weights: job(weights.T), "the map is read by columns"),
    ("check_job", names_swapped, "previous and next have changed places"),
    (
        "check_job",
        lambda weights: job(weights, first=weights[0].mean()),
        "column 0 that is full, not row 0",
    ),
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
