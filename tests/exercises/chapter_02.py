"""Chapter 02: right answers in several styles; wrong ones, and what must be said."""

import math

import torch


def softmax(x, axis=-1):
    e = torch.exp(x - x.amax(axis, keepdim=True))
    return e / e.sum(axis, keepdim=True)


def in_place(x):
    x -= x.amax(-1, keepdim=True)
    return softmax(x)


def backward(p, upstream):
    pulled = p * upstream
    return pulled - p * pulled.sum(-1, keepdim=True)


def by_jacobian(p, upstream):
    jacobian = torch.diag_embed(p) - p[..., :, None] * p[..., None, :]
    return (jacobian @ upstream[..., None])[..., 0]


def streaming(query, pieces, *, low=-torch.inf, scale=0.5, shrink=True):
    """Sums that shrink whenever a larger score comes."""
    highest, total, mixed = low, 0.0, 0.0
    for key, value in pieces:
        scores = query @ key.mT / query.size(-1) ** scale
        new = scores.amax(-1, keepdim=True)
        new = new if highest is low else torch.maximum(new, highest)
        old = 0.0 if highest is low else torch.exp(highest - new)
        old = old if shrink else 1.0
        e = torch.exp(scores - new)
        total, mixed = total * old + e.sum(-1, keepdim=True), mixed * old + e @ value
        highest = new
    return mixed / total


def one_by_one(query, pieces):
    """Each piece's own attention, mixed by the logarithms of their totals."""
    mixed = logs = None
    for key, value in pieces:
        scores = query @ key.transpose(0, 1) / math.sqrt(query.shape[1])
        own, log = torch.softmax(scores, 1) @ value, scores.logsumexp(1, keepdim=True)
        if mixed is None:
            mixed, logs = own, log
            continue
        both = torch.logaddexp(logs, log)
        mixed = mixed * (logs - both).exp() + own * (log - both).exp()
        logs = both
    return mixed


def collected(query, pieces):
    keys, values = (torch.cat(side) for side in zip(*list(pieces), strict=True))
    return softmax(query @ keys.mT / query.size(-1) ** 0.5) @ values


RIGHT = [
    ("check_softmax", softmax),
    ("check_softmax", lambda x: torch.exp(torch.log_softmax(x, -1))),
    ("check_softmax_backward", backward),
    ("check_softmax_backward", by_jacobian),
    ("check_pieces", streaming),
    ("check_pieces", lambda query, pieces: one_by_one(query, pieces)),
]
WRONG = [
    ("check_softmax", lambda x: softmax(x, -2), "the columns add up to 1"),
    ("check_softmax", lambda x: x.exp() / x.exp().sum(-1, keepdim=True), "infinite"),
    ("check_softmax", in_place, "changes x, which is the caller's"),
    ("check_softmax", lambda x: softmax(x).detach(), "no gradient comes through"),
    ("check_softmax", lambda x: softmax(x)[0], "the shape should be (1, 2, 3)"),
    ("check_softmax_backward", lambda p, u: p * u, "only half"),
    ("check_softmax_backward", lambda p, u: p * (1 - p) * u, "the diagonal alone"),
    ("check_softmax_backward", lambda p, u: -backward(p, u), "the sign is reversed"),
    ("check_softmax_backward", lambda p, u: 2 * backward(p, u), "should be"),
    (
        "check_pieces",
        lambda q, pieces: streaming(q, pieces, scale=0),
        "there is no scale",
    ),
    ("check_pieces", lambda q, p: streaming(q, p, scale=1), "by d_k instead of its"),
    ("check_pieces", lambda q, p: streaming(q, p).detach(), "no gradient comes thr"),
    ("check_pieces", lambda q, p: streaming(q.detach(), p), "no gradient for query"),
    ("check_pieces", lambda q, p: streaming(q, p, shrink=False), "when m rises?"),
    ("check_pieces", lambda q, p: streaming(q, list(p)[-1:]), "only the last piece"),
    (
        "check_pieces",
        lambda q, p: streaming(q * (q.size(-1) / 16) ** 0.5, p),
        "d_k = 5, pieces of (12,)",
    ),
    ("check_pieces", collected, "you keep whole pieces"),
]
