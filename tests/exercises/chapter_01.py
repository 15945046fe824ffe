"""Chapter 01: right answers in several styles; wrong ones, and what must be said."""

import math

import torch


def layers(n, k):
    count, heard = 0, 1
    while heard < n:
        count, heard = count + 1, heard * k
    return count


def hub(n):
    mask = torch.zeros(n, n).bool()
    for i in range(n):
        mask[i, max(0, i - 1) : i + 2] = True
        mask[i, 0] = mask[0, i] = True
    return mask


def without(n, change):
    mask = hub(n)
    change(mask)
    return mask


RIGHT = [
    ("check_layers", layers),
    ("check_layers", lambda n, k: torch.tensor(layers(n, k))),
    ("check_equal", lambda c, d: max(0, (c - 4) * d / 2)),
    ("check_equal", lambda c, d: torch.tensor(max(0, c - 4) * d / 2)),
    ("check_hub", hub),
    ("check_hub", lambda n: hub(n).flip(0, 1)),
    ("check_hub", lambda n: hub(n) | torch.tensor(n < 6)),
]
WRONG = [
    ("check_layers", lambda n, k: math.ceil(math.log(n, k)), "log(125, 5) is a bit"),
    ("check_layers", lambda n, k: math.log(n, k), "there is no half a layer"),
    ("check_layers", lambda n, k: layers(n, k) + 1, "one too many"),
    ("check_layers", lambda n, k: layers(n, k) if n < 200 else 9, "avoid logarithms"),
    ("check_layers", lambda n, k: None, "not done yet"),
    ("check_equal", lambda c, d: c * d / 2, "the four projections are missing"),
    ("check_equal", lambda c, d: (c - 4) * d / 2, "so 0, and no negative length"),
    ("check_equal", lambda c, d: (c - 5) * d, "for c = 8, d = 16 it should be 32"),
    ("check_equal", lambda c, d: max(0, (c - 4) * min(d, 512) / 2), "d = 2049 it"),
    ("check_equal", lambda c, d: max(0, math.ceil((c - 4) * d / 2)), "don't round"),
    ("check_equal", lambda c, d: max(0, (c - 4) * d // 2), "don't round"),
    ("check_hub", lambda n: torch.ones(n, n).bool(), "that is full attention"),
    ("check_hub", lambda n: hub(n).tril(), "looks back only"),
    ("check_hub", lambda n: ~hub(n), "upside down"),
    ("check_hub", lambda n: hub(n)[:7, :7], "the shape should be (40, 40)"),
    ("check_hub", lambda n: hub(n) if n > 3 else hub(4), "the shape should be (1, 1)"),
    ("check_hub", lambda n: hub(n) if n != 3 else torch.eye(3) > 0, "n = 3: the wind"),
    ("check_hub", lambda n: without(n, lambda m: m[1]), "right so far, but for 1"),
    (
        "check_hub",
        lambda n: without(n, lambda m: m[2:, 0].fill_(False)),
        "the hub hears all, but nobody hears it",
    ),
]
