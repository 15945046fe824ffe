"""Heads cut and merged, problem 1.3."""

import torch
from torch import Tensor

from annotated_transformer.checks.common import (
    Answer,
    Function,
    compare,
    need,
    need_gradient,
    need_tensor,
    seeded,
    sizes,
    verdict,
)

__all__ = ["check_merge_heads", "check_split_heads"]

LARGE = (2, 24, 8, 16)  # batch, length, heads, size: beyond what one would write down


def check_split_heads(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`split_heads(x, n_heads)`: heads before positions, each with its slice."""
    return verdict(function, part, seed, split=_split)


def split(x: Tensor, heads: int) -> Tensor:
    """The right way."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge(x: Tensor) -> Tensor:
    """The right way back."""
    return x.transpose(1, 2).flatten(-2)


def _split(function: Answer, seed: int) -> None:
    for batch, length, heads, size in (sizes(seed, 2, 5, 3, 7), LARGE, (1, 4, 1, 6)):
        x = torch.randn(batch, length, heads * size, generator=seeded(seed))
        answer, right = function(x, heads), split(x, heads)
        found = tuple(answer.shape) if isinstance(answer, Tensor) else ()
        not_moved = heads > 1 and found == (batch, length, heads, size)
        need(not not_moved, "the heads are cut, but not moved: transpose(1, 2) helps")
        swapped = size != length and found == (batch, heads, size, length)
        need(not swapped, "width and positions are swapped: the size of a head is last")
        view = x.reshape(batch, heads, length, size)
        every = x.view(batch, length, size, heads).permute(0, 3, 1, 2)
        mistakes = (
            (view, "view without a transpose: a head got whole words, not its slice"),
            (every, "a head is a slice of neighbors: cut into heads first, then size"),
        )
        need_tensor(answer, tuple(right.shape))
        compare(answer, right, mistakes, f"head 0 should be x[:, :, :{size}]")
        need_gradient(function, split, x, heads)


def check_merge_heads(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`merge_heads(heads)`: the heads side by side again, the opposite of a split."""
    return verdict(function, part, seed, merge=_merge)


def _merge(function: Answer, seed: int) -> None:
    for batch, length, heads, size in (sizes(seed, 2, 5, 3, 7), LARGE, (1, 4, 1, 6)):
        x = torch.randn(batch, heads, length, size, generator=seeded(seed))
        answer, right = function(x), merge(x)
        found = tuple(answer.shape) if isinstance(answer, Tensor) else ()
        apart = found == (batch, length, heads, size)
        need(not apart, "lay the heads side by side: the last two axes become one")
        one = heads > 1 and found == (batch, length, size)
        need(not one, "one head is left of all: side by side, don't add or average")
        numbers = x.permute(0, 2, 3, 1).flatten(-2)
        mistakes = (
            (
                x.reshape(right.shape),
                "no transpose: positions before heads, then flatten",
            ),
            (numbers, "the heads are mixed number by number: heads first, then size"),
        )
        need_tensor(answer, tuple(right.shape))
        compare(answer, right, mistakes, f"the first {size} columns should be head 0")
        need_gradient(function, merge, x)
