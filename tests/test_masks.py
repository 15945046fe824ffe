"""Masks say who may look where: True = may look."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from annotated_transformer.masks import causal_mask, padding_mask

few = settings(max_examples=20, deadline=None, derandomize=True)


def test_padding_may_not_be_looked_at():
    ids = torch.tensor([[5, 3, 2], [7, 2, 0]])
    assert padding_mask(ids).tolist() == [
        [[[True, True, True]]],
        [[[True, True, False]]],
    ]


def test_nobody_may_look_ahead():
    assert causal_mask(3).tolist() == [
        [True, False, False],
        [True, True, False],
        [True, True, True],
    ]


@given(length=st.integers(1, 30))
@few
def test_position_i_may_look_at_i_plus_1_positions_itself_included(length):
    mask = causal_mask(length)
    assert mask.dtype == torch.bool
    assert mask.sum(-1).tolist() == list(range(1, length + 1))
    assert mask.diagonal().all()


@given(lengths=st.lists(st.integers(1, 7), min_size=1, max_size=5))
@few
def test_both_masks_combine_by_and(lengths):
    ids = torch.zeros(len(lengths), 7, dtype=torch.long)
    for row, length in zip(ids, lengths, strict=True):
        row[:length] = 5
    combined = padding_mask(ids) & causal_mask(7)
    assert combined.shape == (len(lengths), 1, 7, 7)  # room for the heads
    for mask, length in zip(combined, lengths, strict=True):
        for i in range(7):
            for j in range(7):
                assert mask[0, i, j] == (j <= i and j < length)


def test_masks_are_made_on_the_device_that_asks():
    assert padding_mask(torch.ones(2, 3, dtype=torch.long, device="meta")).is_meta
    assert causal_mask(5, "meta").is_meta
