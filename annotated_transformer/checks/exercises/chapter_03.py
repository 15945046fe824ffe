"""Checks of chapter 03, Masks, and of what goes deeper: one for each exercise."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from annotated_transformer.attention import attention
from annotated_transformer.checks.common import (
    Answer,
    compare,
    errors_mean,
    exercise,
    need,
    need_tensor,
    need_truth,
    normal,
    seeded,
)
from annotated_transformer.masks import causal_mask, padding_mask
from annotated_transformer.special import EOS, PAD

__all__ = [
    *("check_detector", "check_from_torch", "check_offset", "check_packed"),
    "check_past_stays",
]

Layer = Callable[[Tensor], Tensor]
UPSIDE_DOWN = "upside down: True should mean may look"


@exercise
def check_from_torch(function: Answer) -> None:
    """`my_from_torch(attn_mask, key_padding_mask)`: one mask, True = may look."""
    hidden = torch.tensor([[0, 1, 1, 1], [0, 0, 1, 0], [1, 0, 0, 0]]).bool()
    padding = torch.tensor([[0, 0, 0, 1], [0, 0, 1, 1]]).bool()
    function(hidden, padding)  # one that is not done yet says so by itself
    nothing = torch.zeros(5, 5).bool()
    for hide, pad in (
        (hidden, padding),
        (normal(4, 4) > 0, normal(4, 4, seed=1) > 1),  # square: axes could be swapped
        (normal(7, 512) > 0, normal(3, 512, seed=1) > 1),
        (nothing, nothing),
    ):
        added = torch.zeros(hide.shape).masked_fill(hide, -math.inf)
        for kind, mask in (("bool", hide), ("float", added), ("half", added.half())):
            with errors_mean(f"{kind} attn_mask: {{error}}", Exception):
                _from_torch(function(mask, pad), hide, pad)


def _from_torch(answer: Tensor, hidden: Tensor, padding: Tensor) -> None:
    shape = (len(padding), 1, *hidden.shape)
    axes = answer.dim()
    need(axes == 4, f"four axes are needed, {shape}, not {axes}")
    need_tensor(answer, shape, torch.bool)
    wide, hidden = padding[:, None, None].expand(shape), hidden.expand(shape)
    compare(
        answer,
        ~hidden & ~wide,
        (
            (~wide, "it is not used"),
            (~hidden, "the padding is not used"),
            (hidden | wide, UPSIDE_DOWN),
            (hidden & ~wide, "that half is upside down (0 means may look)"),
            (~hidden & wide, "the padding is upside down"),
            (~hidden | ~wide, "may look if BOTH allow it, so & instead of |"),
        ),
    )


@exercise
def check_offset(function: Answer) -> None:
    """`my_offset_mask(n_new, n_old)`: causal, for queries that start late."""
    answer = function(3, 5)
    for wrong, message in (
        ((8, 3), "queries are rows and keys are columns: (n_new, n_old + n_new)"),
        ((3, 3), "the old keys are missing: 5 more columns"),
        ((8, 8), "only the new tokens ask: 3 rows, not 8"),
    ):
        need(not isinstance(answer, Tensor) or answer.shape != wrong, message)
    full = torch.ones(3, 8).bool()
    compare(
        need_tensor(answer, (3, 8), torch.bool),
        full.tril(5),
        (
            (
                full.tril(),
                "the triangle starts at the first key, not at the first new one",
            ),
            (full, "nothing is hidden: new tokens see later new tokens"),
            (~full.tril(5), UPSIDE_DOWN),
            (full.tril(4), "off by one: a token may look at itself"),
            (full.tril(6), "off by one: each token sees its successor"),
            (full.tril(3), "shifted by n_new: it is n_old keys that come before"),
            (full.triu(5), "is it triu instead of tril?"),
        ),
        "compare with the last three rows of causal_mask(8)",
    )
    for n_new, n_old in ((5, 0), (1, 6), (6, 2), (1, 0), (40, 512)):
        right, case = causal_mask(n_old + n_new)[n_old:], f"{n_new} new, {n_old} old"
        compare(function(n_new, n_old), right, hint=case)


def same_sentence(number: Tensor) -> Tensor:
    """Which positions of a row bear the same number, for all heads."""
    return (number[:, :, None] == number[:, None, :])[:, None]


@exercise
def check_packed(function: Answer) -> None:
    """`my_packed_mask(ids)`: several sentences in one row."""
    ids = torch.tensor([[5, 6, EOS, 7, EOS, 8, EOS], [9, EOS, 4, 5, EOS, PAD, PAD]])
    answer = function(ids)
    heads = isinstance(answer, Tensor) and answer.shape == (2, 7, 7)
    need(not heads, "the axis for the heads is missing: (2, 1, 7, 7)")
    _packed(answer, ids, "try one short row")
    one = torch.tensor([[7, 8, 9, EOS]])
    empty = torch.tensor([[EOS, EOS, 7, EOS, PAD], [PAD] * 5])
    many = torch.randint(3, 99, (3, 200), generator=seeded(0))
    many[normal(3, 200) > 1.5] = EOS
    many[1, 150:] = PAD
    for ids, case in (
        (one, "one sentence that fills its row"),
        (empty, "sentences without words, and a row of padding"),
        (many, "three rows of 200 tokens"),
    ):
        _packed(function(ids), ids, case)


def _packed(answer: Tensor, ids: Tensor, case: str) -> None:
    """What a padded query sees of words is free, since nobody reads it."""
    length = ids.size(1)
    words, past = padding_mask(ids), causal_mask(length)
    ends = (ids == EOS).long()
    own, late = (same_sentence(ends.cumsum(-1) - n) for n in (ends, 0))
    right = words & past & own
    judged = words.mT | ~words
    late_end = "the end token counts to the next sentence"
    future = "a sentence sees its own future: where is causal?"
    mistakes = (
        (~right, UPSIDE_DOWN),
        (words & past, "sentences see each other: compare their numbers"),
        (words & past & late, late_end),
        (words & own, future),
        (past & own, "padding is looked at"),
        (right[:1].expand_as(right), "row 1 has the mask of row 0"),
    )
    need_tensor(answer, (len(ids), 1, length, length), torch.bool)
    table = [(wrong & judged, message) for wrong, message in mistakes]
    compare(answer & judged, right & judged, table, case)


def _next(x: Tensor) -> Tensor:
    """What stands one position later, and 0 after the last."""
    return F.pad(x[:, 1:], (0, 0, 0, 1))


def _added(part: float, ahead: int = 1) -> Layer:
    """A layer that leaks at one position: at this part of the length."""

    def layer(x: Tensor) -> Tensor:
        out, i = x.clone(), int(part * (x.size(1) - 1 - ahead))
        out[:, i] += x[:, i + ahead]
        return out

    return layer


def _last_to_first(x: Tensor) -> Tensor:
    return torch.cat([x[:, :1] + x[:, -1:], x[:, 1:]], 1)


def _causal(x: Tensor) -> Tensor:
    return attention(x, x, x, causal_mask(x.size(1)))[0]


HONEST: dict[str, Layer] = {
    "x": lambda x: x,
    "x.cumsum(1)": lambda x: x.cumsum(1),
    "causal attention": _causal,
    "layer norm over features": lambda x: F.layer_norm(x, (4,)),
    "a mean over the batch": lambda x: x - x.mean(0),
    "a million times x": lambda x: 1e6 * x.cumsum(1),
    "0 times x": lambda x: 0 * x,
}
STEP = "a step has no gradient: change the input, compare the output"
EVERY, LARGE = "try every position", "try much larger numbers as well"
LEAKS: dict[str, tuple[Layer, str]] = {
    "attention without a mask": (lambda x: attention(x, x, x)[0], "does it compare?"),
    "a step": (lambda x: x + (_next(x) > 0), STEP),
    "last to first": (_last_to_first, "is the last position ever changed?"),
    "one position, at the start": (_added(0), EVERY),
    "one position, inside": (_added(1 / 3), EVERY),
    "one position, at the end": (_added(1), EVERY),
    "one position, from two ahead": (_added(0.5, 2), EVERY),
    "one feature": (lambda x: x + (_next(x) * torch.eye(4)[0]), "change all features"),
    "tiny": (
        lambda x: x * (1 + 1e-6 * _next(x).tanh()),
        "a small leak is a leak: no tolerance",
    ),
    "rare": (lambda x: x + (_next(x) - 6).relu(), LARGE),
    "rare and negative": (lambda x: x + (-_next(x) - 6).relu(), f"{LARGE}, below 0"),
    "mean over length": (lambda x: x - x.mean(1, keepdim=True), EVERY),
}


@exercise
def check_detector(detector: Answer) -> None:
    """`my_leaks(function)`: does an output depend on a later position?"""
    for name, layer in HONEST.items():
        alarm = need_truth(detector(layer))
        only = "only outputs BEFORE the change must stay"
        need(not alarm, f"false alarm for {name}: {only}")
    for name, (layer, message) in LEAKS.items():
        need(need_truth(detector(layer)), f"misses {name!r}: {message}")


# Leaks, each with a position whose change it carries into the past.
AT: list[tuple[str, int, str]] = [
    ("attention without a mask", 3, "does it compare the outputs before i?"),
    ("last to first", 2, "ALL positions from i on must change, up to the last"),
    ("one position, at the start", 1, "position i itself must change, too"),
    (
        "attention without a mask",
        6,
        "the last row alone must change: reversed, it stays",
    ),
    ("one feature", 4, "change all features"),
    ("tiny", 4, "a small leak is a leak: no tolerance"),
]


@exercise
def check_past_stays(function: Answer) -> None:
    """`my_past_stays(function, x, i)`: change x from i on; do outputs before i stay?"""

    def stays(layer: Layer, i: int) -> bool:
        return need_truth(function(lambda x: layer(x[None])[0], normal(7, 4), i))

    only = "True is right: only the outputs BEFORE position i must stay"
    for name, layer in HONEST.items():
        for i in (3, 1, 6):
            need(stays(layer, i), f"{name}, i = {i}: {only}")
    for name, i, message in AT:
        layer = LEAKS[name][0]
        need(not stays(layer, i), f"misses {name!r}, i = {i}: {message}")
