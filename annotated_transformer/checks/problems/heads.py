"""Heads cut and merged, problem 1.3."""

import torch
from torch import Tensor

from annotated_transformer.checks.common import (
    Function,
    ask,
    compare,
    need,
    need_tensor,
    seeded,
    sizes,
    verdict,
)

__all__ = ["check_merge_heads", "check_split_heads"]


def check_split_heads(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`split_heads(x, n_heads)`: heads before positions, each with its slice."""
    return verdict(function, part, seed, split=_split)


def _split(function: Function, seed: int) -> None:
    batch, length, heads, size = sizes(seed, 2, 5, 3, 7)
    x = torch.randn(batch, length, heads * size, generator=seeded(seed))
    answer = ask(function, x, heads)
    need(isinstance(answer, Tensor), f"return a tensor, not a {type(answer).__name__}")
    right = x.view(batch, length, heads, size).transpose(1, 2)
    need(
        answer.shape != (batch, length, heads, size),
        "the heads are cut, but not moved: transpose(1, 2) puts them before positions",
    )
    need(
        answer.shape != (batch, heads, size, length),
        "width and positions are swapped: the last axis is the size of a head",
    )
    need_tensor(answer, tuple(right.shape))
    compare(
        answer,
        right,
        (
            (
                x.reshape(batch, heads, length, size),
                "view without a transpose: a head got whole words in place of its "
                "slice of every word",
            ),
            (
                x.view(batch, length, size, heads).permute(0, 3, 1, 2),
                "a head is a slice of neighbors: cut the width into heads, then size",
            ),
        ),
        f"head 0 should be x[:, :, :{size}], and yours is not",
    )


def check_merge_heads(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`merge_heads(heads)`: the heads side by side again, the opposite of a split."""
    return verdict(function, part, seed, merge=_merge)


def _merge(function: Function, seed: int) -> None:
    batch, length, heads, size = sizes(seed, 2, 5, 3, 7)
    x = torch.randn(batch, heads, length, size, generator=seeded(seed))
    answer = ask(function, x)
    need(isinstance(answer, Tensor), f"return a tensor, not a {type(answer).__name__}")
    right = x.transpose(1, 2).flatten(-2)
    need(
        answer.shape != (batch, length, heads, size),
        "lay the heads side by side: the last two axes become one",
    )
    need(
        answer.shape != (batch, length, size),
        "one head is left of all: lay them side by side, don't add or average",
    )
    need_tensor(answer, tuple(right.shape))
    compare(
        answer,
        right,
        (
            (
                x.reshape(right.shape),
                "no transpose: move the positions before the heads, then flatten",
            ),
            (
                x.permute(0, 2, 3, 1).flatten(-2),
                "the heads are mixed number by number: heads first, then size",
            ),
        ),
        f"the first {size} columns should be head 0, and yours are not",
    )
