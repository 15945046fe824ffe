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


def eq_1(query, key, value, *, axis=-1, divisor=None):
    divisor = divisor or query.size(-1) ** 0.5
    return softmax(query @ key.mT / divisor, axis) @ value


def by_einsum(query, key, value):
    scores = torch.einsum("...id,...jd->...ij", query, key) / math.sqrt(key.shape[-1])
    return torch.einsum("...ij,...jd->...id", scores.softmax(-1), value)


def drill(**changes):
    tenths = [0.6, 0.3, 0.1]
    right = {"plain": tenths, "raised": tenths, "masked": [6 / 7, 0, 1 / 7]}
    return right | {"doubled": torch.tensor([36, 9, 1]) / 46} | changes


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
    ("check_eq_1", eq_1),
    ("check_eq_1", by_einsum),
    ("check_by_pencil", drill),
    ("check_by_pencil", lambda: drill(plain=(6 / 10, 3 / 10, 1 / 10))),
    ("check_softmax", softmax),
    ("check_softmax", lambda x: torch.exp(torch.log_softmax(x, -1))),
    ("check_softmax_backward", backward),
    ("check_softmax_backward", by_jacobian),
    ("check_pieces", streaming),
    ("check_pieces", lambda query, pieces: one_by_one(query, pieces)),
]
WRONG = [
    ("check_eq_1", lambda *qkv: eq_1(*qkv, divisor=1), "no scale"),
    ("check_eq_1", lambda *qkv: eq_1(*qkv, divisor=16), "by d_k instead of its root"),
    ("check_eq_1", lambda *qkv: eq_1(*qkv, divisor=2), "d_k is 4 only for the fruit"),
    ("check_eq_1", lambda *qkv: eq_1(*qkv, axis=0), "over the keys, the last axis"),
    (
        "check_eq_1",
        lambda q, k, v: eq_1(q, k, v, axis=0 if q.dim() == 3 else -1),
        "over the keys, the last axis",
    ),
    ("check_eq_1", lambda q, k, v: softmax(q @ k / 4) @ v, "is the key transposed?"),
    (
        "check_eq_1",
        lambda q, k, v: softmax(q @ k.transpose(0, 1) / 4) @ v,
        "swap the last two, key.mT",
    ),
    ("check_eq_1", lambda *qkv: eq_1(*qkv).detach(), "no gradient comes through"),
    ("check_eq_1", lambda *qkv: (eq_1(*qkv), 1), "return the output only"),
    ("check_by_pencil", lambda: [0.6, 0.3, 0.1], "return a dictionary"),
    ("check_by_pencil", lambda: {"plain": [0.6, 0.3, 0.1]}, "has no 'raised'"),
    ("check_by_pencil", lambda: drill(plain=[6, 3, 1]), "divide each by their total"),
    ("check_by_pencil", lambda: drill(plain=[0.6, 0.4]), "needs three numbers"),
    ("check_by_pencil", lambda: drill(masked=[0.6, 0, 0.1]), "add up to 1 again"),
    ("check_by_pencil", lambda: drill(masked=[6 / 8, 1 / 8, 1 / 8]), "not 0: its"),
    ("check_by_pencil", lambda: drill(doubled=[0.6, 0.3, 0.1]), "is the square of"),
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
