"""Chapter 03: right answers in several styles; wrong ones, and what must be said."""

import math

import torch

from annotated_transformer.masks import causal_mask, padding_mask
from annotated_transformer.special import EOS, PAD


def from_torch(attn_mask, key_padding_mask):
    allowed = ~attn_mask if attn_mask.dtype == torch.bool else attn_mask == 0
    return allowed & ~key_padding_mask[:, None, None, :]


def by_adding(attn_mask, key_padding_mask):
    """Everything as a sum of 0 and -inf, and one comparison at the end."""
    shape = attn_mask.shape
    if attn_mask.dtype == torch.bool:
        attn_mask = torch.zeros(shape).masked_fill(attn_mask, -math.inf)
    hidden = torch.zeros(key_padding_mask.shape)
    hidden = hidden.masked_fill(key_padding_mask, -math.inf)[:, None, None]
    return (attn_mask + hidden).isfinite()


def writes_into_its_mask(attn_mask, key_padding_mask):
    if attn_mask.dtype == torch.bool:
        attn_mask.logical_not_()
        return attn_mask & ~key_padding_mask[:, None, None, :]
    return from_torch(attn_mask, key_padding_mask)


def offset(n_new, n_old):
    return torch.ones(n_new, n_old + n_new, dtype=torch.bool).tril(n_old)


def by_comparison(n_new, n_old):
    key = torch.arange(n_old + n_new)
    return key <= key[n_old:, None]


def packed(ids, late=0, causal=True):
    ends = (ids == EOS).long()
    number = ends.cumsum(-1) - ends * (1 - late)
    same = number[:, None, :, None] == number[:, None, None, :]
    mask = padding_mask(ids) & same
    return mask & causal_mask(ids.size(1)) if causal else mask


def packed_by_loops(ids):
    mask = torch.zeros(len(ids), 1, ids.size(1), ids.size(1)).bool()
    for row, out in zip(ids.tolist(), mask[:, 0], strict=True):
        start = 0
        for i, token in enumerate(row):
            out[i, start : i + 1] = token != PAD
            start = i + 1 if token == EOS else start
    return mask


def free_padding(ids):
    """A padded query may see what it likes: nobody reads it."""
    words = padding_mask(ids)
    return packed(ids) | (words & ~words.mT)


def leaks(function, length=9, scales=(1, 10, 100), start=1, tolerance=0.0):
    for scale in scales:
        for i in range(start, length):
            x = scale * torch.randn(2, length, 4)
            changed = x.clone()
            changed[:, i:] = scale * torch.randn(2, length - i, 4)
            off = (function(x) - function(changed))[:, :i].abs().max()
            if off > tolerance:
                return True
    return False


def as_tensor(function):
    return torch.tensor([leaks(function)]).any()


def gradient_alone(function):
    x = torch.randn(1, 6, 4).requires_grad_()
    for i in range(5):
        (slope,) = torch.autograd.grad(function(x)[:, i].sum(), x, allow_unused=True)
        if slope is not None and slope[:, i + 1 :].any():
            return True
    return False


def all_outputs(function):
    x = torch.randn(1, 6, 4)
    changed = x.clone()
    changed[:, 3:] = 1
    return not torch.equal(function(x), function(changed))


def past_stays(function, x, i, new=torch.randn_like, last=None):
    changed = x.clone()
    changed[i:last] = new(x[i:last])
    return torch.equal(function(x)[:i], function(changed)[:i])


def past_is_near(function, x, i):
    changed = torch.cat([x[:i], torch.zeros_like(x[i:])])
    return torch.allclose(function(x)[:i], function(changed)[:i], atol=1e-4)


def all_stays(function, x, i):
    changed = torch.cat([x[:i], torch.zeros_like(x[i:])])
    return torch.equal(function(x), function(changed))


def writes_into_x(function, x, i):
    before = function(x)[:i].clone()
    x[i:] = 0
    return torch.equal(before, function(x)[:i])


def reverse(rows):
    return rows.flip(0)


RIGHT = [
    ("check_from_torch", from_torch),
    ("check_from_torch", by_adding),
    ("check_offset", offset),
    ("check_offset", by_comparison),
    ("check_offset", lambda n_new, n_old: causal_mask(n_old + n_new)[-n_new:]),
    ("check_packed", packed),
    ("check_packed", packed_by_loops),
    ("check_packed", free_padding),
    ("check_detector", leaks),
    ("check_detector", as_tensor),
    ("check_past_stays", past_stays),
    ("check_past_stays", lambda f, x, i: past_stays(f, x, i, torch.zeros_like)),
    ("check_past_stays", lambda f, x, i: past_stays(f, x, i, lambda x: x + 1)),
]
WRONG = [
    ("check_from_torch", lambda a, p: None, "not done yet"),
    ("check_from_torch", lambda a, p: ~from_torch(a, p), "upside down"),
    ("check_from_torch", lambda a, p: from_torch(a, ~p), "the padding is upside down"),
    ("check_from_torch", lambda a, p: from_torch(a, p)[:, 0], "four axes are needed"),
    ("check_from_torch", lambda a, p: ~a & ~p[:, None, None], "float attn_mask: "),
    ("check_from_torch", lambda a, p: ~a.bool() | ~p[:, None, None], "if BOTH allow"),
    ("check_from_torch", lambda a, p: from_torch(a, p).float(), "torch.bool, not"),
    ("check_from_torch", writes_into_its_mask, "changes attn_mask, which"),
    ("check_offset", lambda n, m: offset(n, m).tril(), "not at the first new one"),
    ("check_offset", lambda n, m: torch.ones(n, n + m).bool().tril(n), "by n_new"),
    ("check_offset", lambda n, m: offset(n, m).tril(m - 1), "a token may look at"),
    ("check_offset", lambda n, m: offset(n, m).mT, "queries are rows and keys are"),
    ("check_offset", lambda n, m: causal_mask(n + m), "only the new tokens ask"),
    ("check_offset", lambda n, m: offset(n, m).float(), "the type should be"),
    ("check_offset", lambda n, m: causal_mask(8)[-n:, : n + m], "5 new, 0 old"),
    ("check_offset", lambda n, m: offset(n, 5), "(5, 5), not (5, 10): 5 new, 0 old"),
    ("check_packed", lambda ids: packed(ids, late=1), "counts to the next sentence"),
    ("check_packed", lambda ids: packed(ids, causal=False), "where is causal?"),
    ("check_packed", lambda ids: packed(ids)[:, 0], "axis for the heads is missing"),
    ("check_packed", lambda ids: packed(ids) * 1.0, "the type should be torch.bool"),
    (
        "check_packed",
        lambda ids: padding_mask(ids) & causal_mask(ids.size(1)),
        "sentences see each other",
    ),
    ("check_packed", lambda ids: packed(ids)[:1].expand(2, -1, -1, -1), "of row 0"),
    ("check_packed", lambda ids: packed(ids) & causal_mask(7), "it raises Runtime"),
    ("check_detector", gradient_alone, "a step has no gradient"),
    ("check_detector", all_outputs, "only outputs BEFORE the change"),
    ("check_detector", lambda f: leaks(f, start=2), "misses 'one position, at the st"),
    ("check_detector", lambda f: leaks(f, tolerance=1e-2), "no tolerance"),
    ("check_detector", lambda f: leaks(f, scales=(1,)), "try much larger numbers"),
    ("check_detector", lambda f: "leaks", "return True or False, not str"),
    ("check_detector", lambda f: None, "not done yet"),
    ("check_past_stays", lambda f, x, i: None, "not done yet"),
    ("check_past_stays", all_stays, "only the outputs BEFORE position i"),
    ("check_past_stays", past_is_near, "misses 'tiny', i = 4: a small leak"),
    ("check_past_stays", writes_into_x, "your function changes x"),
    ("check_past_stays", lambda f, x, i: True, "misses 'attention without a mask'"),
    ("check_past_stays", lambda f, x, i: past_stays(f, x, i, last=i + 1), "up to the"),
    ("check_past_stays", lambda f, x, i: past_stays(f, x, i + 1), "i itself must"),
    ("check_past_stays", lambda f, x, i: past_stays(f, x, i, reverse), "last row"),
]
