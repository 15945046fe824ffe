"""The masks of problem 1.1: padding, the future, and both."""

import torch
from torch import Tensor

from annotated_transformer.checks.common import (
    Answer,
    Function,
    compare,
    need,
    need_tensor,
    seeded,
    sizes,
    verdict,
)
from annotated_transformer.masks import causal_mask, padding_mask
from annotated_transformer.special import BOS, EOS, PAD, UNK

__all__ = ["check_causal_mask", "check_decoder_mask", "check_padding_mask"]

UPSIDE_DOWN = "upside down: True should mean may look"
REVERSED = "reversed: it sees the future, and not its past"
ITSELF = "off by one: a position may look at itself, too"


def padded_ids(seed: int) -> Tensor:
    """Token ids (batch, length) whose rows end in padding, in other amounts."""
    g = seeded(seed)
    batch, length = sizes(seed, 3, 5)
    length = max(length, 4)
    ids = torch.randint(PAD + 1, 30, (batch, length), generator=g)
    ids[-1, :3] = torch.tensor([BOS, EOS, UNK])  # these are not padding
    kept = torch.randint(2, length, (batch, 1), generator=g)
    kept[0] = length - 2  # padding somewhere, and a row with another amount of it
    kept[-1] = length
    return ids.masked_fill(torch.arange(length) >= kept, PAD)


def other_ids(seed: int) -> list[Tensor]:
    """Corners: one long row, none padded, padding on the left, and nothing else."""
    ids = torch.randint(PAD + 1, 5_000, (2, 64), generator=seeded(seed))
    left = ids[:, :7].masked_fill(torch.arange(7) < 3, PAD)
    return [ids, ids[:1, :1], left, torch.full((2, 4), PAD)]


def need_mask(answer: object, right: Tensor) -> Tensor:
    """The answer, once it is a bool tensor of the right shape."""
    mask = need_tensor(answer, tuple(right.shape))
    kind = f"the mask should be bool, not {mask.dtype}: True = may look"
    need(mask.dtype == torch.bool, kind)
    return mask


def check_padding_mask(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`padding_mask(ids)`: every query may look at the keys that are not padding."""
    return verdict(function, part, seed, padding=_padding)


def _padding(function: Answer, seed: int) -> None:
    ids = padded_ids(seed)
    answer, right = function(ids), padding_mask(ids)
    found = tuple(answer.shape) if isinstance(answer, Tensor) else ()
    axes = "the axes for heads and queries are missing: (batch, 1, 1, key)"
    need(found != tuple(ids.shape), axes)
    queries = "the mask hides queries: padding must be on the last axis, the keys"
    need(found != (len(ids), 1, ids.size(1), 1), queries)
    special, bos = (ids > UNK)[:, None, None], (ids > BOS)[:, None, None]
    mistakes = (
        (~right, UPSIDE_DOWN),
        (torch.ones_like(right), "padding is looked at: compare the ids with PAD"),
        (right[:1].expand_as(right), "every row has the mask of row 0"),
        (special, "BOS, EOS and UNK are hidden, too: only PAD is padding"),
        (bos, "BOS is hidden, too: only PAD is padding"),
    )
    hint = "hide exactly where the id is PAD"
    compare(need_mask(answer, right), right, mistakes, hint)
    for ids in other_ids(seed):
        right = padding_mask(ids)
        compare(need_mask(function(ids), right), right, hint=hint)


def check_causal_mask(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`causal_mask(length)`: position i may look at positions 0 to i."""
    return verdict(function, part, seed, future=_future)


def _future(function: Answer, seed: int) -> None:
    first = (5, 1) if seed == 0 else (sizes(seed, 0)[0] + 1, 4)
    for length in (*first, 100):
        right = causal_mask(length)
        ones, alone = torch.ones_like(right), torch.eye(length).bool()
        mistakes = (
            (right.tril(-1), ITSELF),
            (right.T, REVERSED),
            (~right, UPSIDE_DOWN),
            (~right | right.T, UPSIDE_DOWN),
            (ones.tril(1), "off by one: it sees the next position"),
            (ones, "it sees all of the future"),
            (alone, "it sees itself alone: the past is allowed, too"),
        )
        answer = need_mask(function(length), right)
        compare(answer, right, mistakes, "row i allows columns 0 to i")


def check_decoder_mask(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`decoder_mask(ids)`: no padding and no future, (batch, 1, query, key)."""
    return verdict(function, part, seed, both=_both)


def _both(function: Answer, seed: int) -> None:
    ids = padded_ids(seed)
    padding, causal = padding_mask(ids), causal_mask(ids.size(1))
    answer, right = function(ids), padding & causal
    found = tuple(answer.shape) if isinstance(answer, Tensor) else ()
    axis = "the axis for the heads is missing: (batch, 1, query, key)"
    need(found != (len(ids), *right.shape[2:]), axis)
    one = "allowed by one of the two: BOTH must allow it, so &"
    queries = "that hides padded queries: hide padded keys alone"
    mistakes = (
        (~right, UPSIDE_DOWN),
        (padding | causal, one),
        (padding.expand_as(right), "it sees the future: where is causal?"),
        (causal.expand_as(right), "padding is looked at: where is its mask?"),
        (padding & causal.T, REVERSED),
        (padding & causal.tril(-1), ITSELF),
        (right & padding.mT, queries),
    )
    hint = "may look = not padding, and not later"
    compare(need_mask(answer, right), right, mistakes, hint)
    for ids in other_ids(seed):
        right = padding_mask(ids) & causal_mask(ids.size(1))
        compare(need_mask(function(ids), right), right, hint=hint)
