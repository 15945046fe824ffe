"""Chapter 18: right answers in several styles; wrong ones, and what must be said."""

import math

import torch
from torch import nn

from annotated_transformer.special import UNK


def clip(gradients, limit):
    """In Python's own numbers."""
    total = math.sqrt(sum(g.square().sum().item() for g in gradients))
    return [g * limit / total if total > limit else g for g in gradients]


def by_torch(gradients, limit):
    parameters = [nn.Parameter(torch.zeros_like(g)) for g in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.clone()
    nn.utils.clip_grad_norm_(parameters, limit)
    return [parameter.grad for parameter in parameters]


def in_place(gradients, limit):
    nn.utils.clip_grad_norm_(gradients, limit)
    for gradient, new in zip(gradients, clip(gradients, limit), strict=True):
        gradient.copy_(new)
    return gradients


def each_alone(gradients, limit):
    return [clip([g], limit)[0] for g in gradients]


def always(gradients, limit):
    total = torch.cat([g.flatten() for g in gradients]).norm()
    return [g * limit / total for g in gradients]


def without_root(gradients, limit):
    total = sum(g.square().sum() for g in gradients)
    return [g * min(limit / total, 1) for g in gradients]


def ratio(before, after):
    return (after - before).norm() / before.norm()


def in_squares(before, after):
    change = [
        (b - a) ** 2 for a, b in zip(before.flatten(), after.flatten(), strict=True)
    ]
    return math.sqrt(sum(change) / before.pow(2).sum())


def noise(src, share, generator):
    hit = torch.rand(src.shape, generator=generator) < share
    return torch.where(hit & (src > UNK), UNK, src)


def noise_in_loops(src, share, generator):
    rows = src.tolist()
    for row in rows:
        for i, token in enumerate(row):
            if token > UNK and torch.rand((), generator=generator) < share:
                row[i] = UNK
    return torch.tensor(rows)


def noise_in_columns(src, share, generator):
    hit = torch.rand(src.size(1), generator=generator) < share
    return src.masked_fill(hit & (src > UNK), UNK)


def noise_on_all(src, share, generator, least=-1):
    hit = torch.rand(src.shape, generator=generator) < share
    return src.masked_fill(hit & (src > least), UNK)


def noise_of_the_world(src, share, generator):
    return src.masked_fill((torch.rand(src.shape) < share) & (src > UNK), UNK)


def noise_once(src, share, generator):
    return noise(src, share, torch.Generator().manual_seed(0))


def noise_in_place(src, share, generator):
    return src.copy_(noise(src, share, generator))


def rate(weight, direction, wanted):
    return wanted * weight.norm() / direction.norm()


def rate_in_squares(weight, direction, wanted):
    return wanted * math.sqrt(weight.pow(2).sum() / direction.pow(2).sum())


RIGHT = [
    ("check_noise", noise),
    ("check_noise", noise_in_loops),
    ("check_matrix_rate", rate),
    ("check_matrix_rate", rate_in_squares),
    ("check_matrix_rate", lambda *case: rate(*case).item()),
    ("check_clip", clip),
    ("check_clip", by_torch),
    ("check_clip", lambda *case: tuple(clip(*case))),
    ("check_ratio", ratio),
    ("check_ratio", in_squares),
    ("check_ratio", lambda *case: ratio(*case).item()),
    ("check_diagnosis", (1, "memory_ignored")),
    ("check_diagnosis", (2, "positions_missing")),
    ("check_diagnosis", (3, "causal_mask_missing")),
    ("check_diagnosis", (4, "padding_mask_missing")),
    ("check_diagnosis", (5, "softmax_twice")),
    ("check_diagnosis", (6, "start_token")),
]
WRONG = [
    ("check_noise", lambda src, share, generator: None, "not done yet"),
    ("check_noise", noise_on_all, "the padding tokens stay"),
    ("check_noise", lambda *case: noise_on_all(*case, least=0), "the start tokens"),
    ("check_noise", lambda *case: noise_on_all(*case, least=1), "the end tokens stay"),
    ("check_noise", lambda s, p, g: noise(s, 1 - p, g), "how many should be hit?"),
    ("check_noise", lambda s, p, g: noise(s, p / 2, g), "of the words became UNK"),
    ("check_noise", lambda s, p, g: noise(s, p, g) % UNK, "becomes UNK"),
    ("check_noise", noise_in_columns, "each word draws for itself"),
    ("check_noise", noise_of_the_world, "pass your generator on"),
    ("check_noise", noise_once, "draw anew"),
    ("check_noise", noise_in_place, "changes src, which is the caller's"),
    ("check_noise", lambda s, p, g: noise(s, p, g)[:, 1:], "shape"),
    ("check_matrix_rate", lambda w, d, r: None, "not done yet"),
    ("check_matrix_rate", lambda w, d, r: r * d.norm() / w.norm(), "upside down"),
    ("check_matrix_rate", lambda w, d, r: r / d.norm(), "where is it?"),
    ("check_matrix_rate", lambda w, d, r: r * w.norm(), "where is its length?"),
    ("check_matrix_rate", lambda w, d, r: w.norm() / d.norm(), "a ratio of 1"),
    ("check_matrix_rate", lambda w, d, r: rate(w, d, 1 / r), "twice the rate"),
    ("check_matrix_rate", lambda w, d, r: r, "which rate gives it?"),
    ("check_matrix_rate", lambda w, d, r: r * rate(w, d, 1) ** 2, "take the norm"),
    ("check_matrix_rate", lambda w, d, r: rate(w, d, r) * d, "return one number"),
    ("check_clip", lambda gradients, limit: None, "not done yet"),
    ("check_clip", each_alone, "one factor for all"),
    ("check_clip", always, "the factor is at most 1"),
    ("check_clip", without_root, "the norm is a root"),
    ("check_clip", lambda gs, c: [g.clamp(-c, c) for g in gs], "by value"),
    ("check_clip", lambda gs, c: gs, "nothing is clipped"),
    ("check_clip", lambda gs, c: clip(gs, c)[:1], "none is left out"),
    ("check_clip", lambda gs, c: 3.0, "return a list of tensors"),
    ("check_clip", in_place, "changes gradients, which is the caller's"),
    ("check_ratio", lambda before, after: None, "not done yet"),
    ("check_ratio", lambda before, after: ratio(after, before), "before the step"),
    ("check_ratio", lambda before, after: 1 / ratio(before, after), "upside down"),
    ("check_ratio", lambda before, after: (after - before).norm(), "divide by"),
    ("check_ratio", lambda before, after: after.norm() / before.norm(), "subtract"),
    ("check_ratio", lambda before, after: after - before, "return one number"),
    ("check_diagnosis", (1, None), "not done yet"),
    ("check_diagnosis", (1, "positions_missing"), "give two sources"),
    ("check_diagnosis", (3, "causal_mask"), "did you mean causal_mask_missing?"),
    ("check_diagnosis", (4, "flu"), "no cause is called flu"),
    ("check_diagnosis", (0, "flu"), "patient 0 is not sick"),
]
