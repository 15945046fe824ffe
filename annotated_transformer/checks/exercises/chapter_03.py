"""Checks of chapter 03, Masks: one for each exercise."""

import math
from typing import Any

import torch
import torch.nn.functional as F

from annotated_transformer.attention import attention
from annotated_transformer.checks.common import Function
from annotated_transformer.masks import causal_mask, padding_mask
from annotated_transformer.special import EOS, PAD

__all__ = ["check_detector", "check_from_torch", "check_offset", "check_packed"]


def check_from_torch(function: Function) -> str:
    """`my_from_torch(attn_mask, key_padding_mask)`: one mask, True = may look."""
    hidden = torch.tensor([[0, 1, 1, 1], [0, 0, 1, 0], [1, 0, 0, 0]]).bool()
    padding = torch.tensor([[0, 0, 0, 1], [0, 0, 1, 1]]).bool()
    added = torch.zeros(3, 4).masked_fill(hidden, -math.inf)
    wide = padding[:, None, None, :]
    right = ~hidden & ~wide
    try:
        answers = [function(m, padding) for m in (hidden, added)]
    except (RuntimeError, TypeError, IndexError) as error:
        return f"it raises an error: {str(error)[:60]}"
    if any(answer is None for answer in answers):
        return "not done yet"
    for kind, answer in zip(("bool", "float"), answers, strict=True):
        if answer.dtype != torch.bool:
            return f"{kind} attn_mask: the result should be bool, not {answer.dtype}"
        if answer.dim() != 4:
            return f"{kind} attn_mask: four axes are needed, not {answer.dim()}"
        if torch.equal(answer, ~wide):
            return f"{kind} attn_mask: it is not used"
        if answer.shape[2:] == (3, 4) and bool((answer == ~hidden).all()):
            return f"{kind} attn_mask: the padding is not used"
        if torch.equal(answer, ~right):
            return f"{kind} attn_mask: upside down, True should mean may look"
        if torch.equal(answer, hidden & ~wide):
            return f"{kind} attn_mask: that half is upside down (0 means may look)"
        if torch.equal(answer, ~hidden & wide):
            return f"{kind} attn_mask: the padding is upside down"
        if torch.equal(answer, ~hidden | ~wide):
            return f"{kind} attn_mask: may look if BOTH allow it, so & in place of |"
        if not torch.equal(answer, right):
            return f"{kind} attn_mask: wrong entries"
    return "correct"


def check_offset(function: Function) -> str:
    """`my_offset_mask(n_new, n_old)`: causal, for queries that start late."""
    answer = function(3, 4)
    if answer is None:
        return "not done yet"
    if answer.shape == (7, 3):
        return "queries are rows and keys are columns: (n_new, n_old + n_new)"
    if answer.shape == (3, 3):
        return "the old keys are missing: 4 more columns"
    if answer.shape != (3, 7):
        return f"the shape should be (3, 7), not {tuple(answer.shape)}"
    if answer.dtype != torch.bool:
        return f"the mask should be bool, not {answer.dtype}"
    full, right = torch.ones(3, 7).bool(), causal_mask(7)[4:]
    for wrong, mistake in (
        (full.tril(), "the triangle starts at the first key, not at the first new one"),
        (full, "nothing is hidden: new tokens see later new tokens"),
        (~right, "upside down: True should mean may look"),
        (full.tril(3), "off by one: a token may look at itself"),
        (full.tril(5), "off by one: each token sees its successor"),
        (full.triu(4), "is it triu in place of tril?"),
    ):
        if torch.equal(answer, wrong):
            return mistake
    if not torch.equal(answer, right):
        return "compare with the last three rows of causal_mask(7)"
    if not torch.equal(function(5, 0), causal_mask(5)):
        return "without old tokens it should be causal_mask(5)"
    return "correct"


def check_packed(function: Function) -> str:
    """`my_packed_mask(ids)`: several sentences in one row."""
    ids = torch.tensor([[5, 6, EOS, 7, EOS, 8, EOS], [9, EOS, 4, 5, EOS, PAD, PAD]])
    try:
        answer = function(ids)
    except (RuntimeError, TypeError, IndexError) as error:
        return f"it raises an error: {str(error)[:60]}"
    if answer is None:
        return "not done yet"
    if answer.shape == (2, 7, 7):
        return "the axis for the heads is missing: (2, 1, 7, 7)"
    if answer.shape != (2, 1, 7, 7):
        return f"the shape should be (2, 1, 7, 7), not {tuple(answer.shape)}"
    if answer.dtype != torch.bool:
        return f"the mask should be bool, not {answer.dtype}"
    ends = (ids == EOS).long()

    def same_sentence(number: Any) -> Any:
        return (number[:, :, None] == number[:, None, :])[:, None]

    late, number = ends.cumsum(-1), ends.cumsum(-1) - ends
    words, past = padding_mask(ids), causal_mask(7)
    right = words & past & same_sentence(number)
    for wrong, mistake in (
        (~right, "upside down: True should mean may look"),
        (words & past, "sentences see each other: compare their numbers"),
        (
            words & past & same_sentence(late),
            "the end token counts to the next sentence",
        ),
        (
            words & same_sentence(number),
            "a sentence sees its own future: where is causal?",
        ),
        (past & same_sentence(number), "padding is looked at"),
        (right[:1].expand(2, -1, -1, -1), "row 1 has the mask of row 0"),
    ):
        if torch.equal(answer, wrong):
            return mistake
    return (
        "correct" if torch.equal(answer, right) else "wrong entries: try one short row"
    )


def check_detector(detector: Function) -> str:
    """`my_leaks(function)`: does an output depend on a later position?"""

    def every(x: Any) -> Any:
        return torch.ones(x.size(1), x.size(1), dtype=torch.bool)

    def late(x: Any) -> Any:
        return torch.cat([x[:, 1:], torch.zeros_like(x[:, :1])], 1)

    def one_place(share: Any) -> Any:
        def function(x: Any) -> Any:
            out, i = x.clone(), int(share * (x.size(1) - 2))
            out[:, i] += x[:, i + 1]
            return out

        return function

    def last_to_first(x: Any) -> Any:
        out = x.clone()
        out[:, 0] += x[:, -1]
        return out

    honest = {
        "x": lambda x: x,
        "x.cumsum(1)": lambda x: x.cumsum(1),
        "causal attention": lambda x: attention(x, x, x, every(x).tril())[0],
        "layer norm over features": lambda x: F.layer_norm(x, (4,)),
        "a mean over the batch": lambda x: x - x.mean(0),
        "a million times x": lambda x: 1e6 * x.cumsum(1),
    }
    leaks = {
        "attention without a mask": (
            lambda x: attention(x, x, x)[0],
            "does it compare?",
        ),
        "a step": (
            lambda x: x + (late(x) > 0),
            "a step has no gradient: change the input, compare the output",
        ),
        "last to first": (last_to_first, "is the last position ever changed?"),
        "one place, at the start": (one_place(0), "try every place"),
        "one place, inside": (one_place(1 / 3), "try every place"),
        "one place, at the end": (one_place(1), "try every place"),
        "tiny": (
            lambda x: x * (1 + 1e-6 * late(x).tanh()),
            "a small leak is a leak: no tolerance",
        ),
        "rare": (lambda x: x + (late(x) - 6).relu(), "try much larger numbers as well"),
        "mean over length": (lambda x: x - x.mean(1, keepdim=True), "try every place"),
    }
    if detector(honest["x"]) is None:
        return "not done yet"
    for name, function in honest.items():
        if detector(function):
            return f"false alarm for {name}: only outputs BEFORE the change must stay"
    for name, (function, mistake) in leaks.items():
        if not detector(function):
            return f"misses {name!r}: {mistake}"
    return "correct"
