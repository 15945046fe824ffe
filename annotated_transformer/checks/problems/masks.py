"""The masks of problem 1.1: padding, the future, and both."""

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
from annotated_transformer.masks import causal_mask, padding_mask
from annotated_transformer.special import BOS, EOS, PAD, UNK

__all__ = ["check_causal_mask", "check_decoder_mask", "check_padding_mask"]

UPSIDE_DOWN = "upside down: True should mean may look"


def padded_ids(seed: int) -> Tensor:
    """Token ids (batch, length) whose rows end in padding, in other amounts."""
    g = seeded(seed)
    batch, length = sizes(seed, 3, 5)
    length = max(length, 4)
    ids = torch.randint(PAD + 1, 30, (batch, length), generator=g)
    ids[-1, :3] = torch.tensor([BOS, EOS, UNK])  # these are no padding
    kept = torch.randint(2, length, (batch, 1), generator=g)
    kept[0] = length - 2  # padding somewhere, and a row with another amount of it
    kept[-1] = length
    return ids.masked_fill(torch.arange(length) >= kept, PAD)


def check_padding_mask(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`padding_mask(ids)`: every query may look at the keys that are not padding."""
    return verdict(function, part, seed, padding=_padding)


def _padding(function: Function, seed: int) -> None:
    ids = padded_ids(seed)
    answer, right = ask(function, ids), padding_mask(ids)
    need(isinstance(answer, Tensor), f"return a tensor, not a {type(answer).__name__}")
    need(
        answer.shape != ids.shape,
        "the axes for heads and queries are missing: (batch, 1, 1, key)",
    )
    need(
        answer.shape != (len(ids), 1, ids.size(1), 1),
        "the mask hides queries: padding must be on the last axis, the keys",
    )
    need_tensor(answer, tuple(right.shape))
    need(answer.dtype == torch.bool, f"the mask should be bool, not {answer.dtype}")
    compare(
        answer,
        right,
        (
            (~right, UPSIDE_DOWN),
            (torch.ones_like(right), "padding is looked at: compare the ids with PAD"),
            (right[:1].expand_as(right), "every row has the mask of row 0"),
            (
                (ids > UNK)[:, None, None],
                "BOS, EOS and UNK are hidden, too: only PAD is padding",
            ),
            (
                (ids > PAD + 1)[:, None, None],
                "BOS is hidden, too: only PAD is padding",
            ),
        ),
        "wrong entries: hide exactly where the id is PAD",
    )


def check_causal_mask(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`causal_mask(length)`: position i may look at positions 0 to i."""
    return verdict(function, part, seed, future=_future)


def _future(function: Function, seed: int) -> None:
    for length in (5, 1) if seed == 0 else (sizes(seed, 0)[0] + 1, 4):
        answer, right = ask(function, length), causal_mask(length)
        need_tensor(answer, (length, length))
        need(
            answer.dtype == torch.bool,
            f"the mask should be bool, not {answer.dtype}: True = may look",
        )
        compare(
            answer,
            right,
            (
                (
                    right.tril(-1),
                    "off by one: a position may look at itself, too",
                ),
                (right.T, "reversed: it sees the future, and not its past"),
                (~right, UPSIDE_DOWN),
                (~right | right.T, UPSIDE_DOWN),
                (
                    torch.ones_like(right).tril(1),
                    "off by one: it sees the next position",
                ),
                (torch.ones_like(right), "it sees all of the future"),
                (
                    torch.eye(length).bool(),
                    "it sees itself alone: the past is allowed, too",
                ),
            ),
            "wrong entries: row i allows columns 0 to i",
        )


def check_decoder_mask(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`decoder_mask(ids)`: no padding and no future, (batch, 1, query, key)."""
    return verdict(function, part, seed, both=_both)


def _both(function: Function, seed: int) -> None:
    ids = padded_ids(seed)
    padding, causal = padding_mask(ids), causal_mask(ids.size(1))
    answer = ask(function, ids)
    need(isinstance(answer, Tensor), f"return a tensor, not a {type(answer).__name__}")
    right = padding & causal
    need(
        answer.shape != right.shape[:1] + right.shape[2:],
        "the axis for the heads is missing: (batch, 1, query, key)",
    )
    need_tensor(answer, tuple(right.shape), torch.bool)
    compare(
        answer,
        right,
        (
            (~right, UPSIDE_DOWN),
            (padding | causal, "allowed by one of the two: BOTH must allow it, so &"),
            (padding.expand_as(right), "it sees the future: where is causal?"),
            (causal.expand_as(right), "padding is looked at: where is its mask?"),
            (padding & causal.T, "reversed: it sees the future, and not its past"),
            (padding & causal.tril(-1), "off by one: a position sees itself, too"),
            (right & padding.mT, "that hides padded queries: hide padded keys alone"),
        ),
        "wrong entries: may look = not padding, and not later",
    )
