"""Batches: every pair once, inside the budget, little padding, order from the seed."""

from collections import Counter
from itertools import islice

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from annotated_transformer.batches import Batch, collate, epochs, token_groups
from annotated_transformer.errors import InputError
from annotated_transformer.special import BOS, EOS, PAD

few = settings(max_examples=30, deadline=None, derandomize=True)
lengths = st.lists(
    st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=40
)


def pairs_of(lengths):
    """Pairs that can be told apart: number i is made of the id 4 + i."""
    return [
        ([4 + i] * (src - 1) + [EOS], [4 + i] * (tgt - 1) + [EOS])
        for i, (src, tgt) in enumerate(lengths)
    ]


def random_pairs(n, seed=0):
    """Lengths like those of sentences: many short ones, a few long ones."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.randn(n, 2, generator=generator) * torch.tensor([0.5, 0.1])
    src = (2.5 + spread[:, 0]).exp().clamp(2, 100)
    tgt = (src.log() + spread[:, 1]).exp().clamp(2, 100)
    return pairs_of(list(zip(src.int().tolist(), tgt.int().tolist(), strict=True)))


def generator(seed):
    return torch.Generator().manual_seed(seed)


# One batch


def test_the_decoder_reads_all_but_the_last_and_predicts_all_but_the_first():
    batch = collate([([5, 6, EOS], [7, EOS]), ([8, EOS], [9, 10, 11, EOS])])
    assert batch.src.tolist() == [[5, 6, EOS], [8, EOS, PAD]]
    assert batch.tgt.tolist() == [[BOS, 7, EOS, PAD, PAD], [BOS, 9, 10, 11, EOS]]
    assert batch.tgt_in.tolist() == [[BOS, 7, EOS, PAD], [BOS, 9, 10, 11]]
    assert batch.labels.tolist() == [[7, EOS, PAD, PAD], [9, 10, 11, EOS]]
    assert batch.n_tokens == 2 + 4


@given(lengths=lengths)
@few
def test_padding_ends_with_the_longest_sentence_and_nothing_is_lost(lengths):
    pairs = pairs_of(lengths)
    batch = collate(pairs)
    assert batch.src.size(1) == max(src for src, _ in lengths)
    assert batch.tgt.size(1) == max(tgt for _, tgt in lengths) + 1
    assert batch.n_tokens == sum(tgt for _, tgt in lengths)
    for (src, tgt), src_row, tgt_row in zip(pairs, batch.src, batch.tgt, strict=True):
        assert src_row[src_row != PAD].tolist() == src
        assert tgt_row[tgt_row != PAD].tolist() == [BOS, *tgt]


def test_a_batch_moves_as_a_whole():
    batch = collate(pairs_of([(2, 3), (5, 7)])).to("meta")
    assert batch.src.is_meta
    assert batch.tgt.is_meta
    assert isinstance(batch, Batch)


# Many batches


@given(lengths=lengths, budget=st.integers(20, 100), seed=st.none() | st.integers(0, 9))
@few
def test_every_pair_comes_once_inside_the_budget(lengths, budget, seed):
    pairs = pairs_of(lengths)
    order = None if seed is None else generator(seed)
    batches = token_groups(pairs, budget, generator=order)
    assert Counter(id(pair) for batch in batches for pair in batch) == Counter(
        map(id, pairs)
    )
    for batch in batches:
        assert batch
        padded = collate(batch)
        assert max(padded.src.numel(), padded.labels.numel()) <= budget


def test_a_batch_is_as_full_as_the_budget_allows():
    pairs = pairs_of([(3, 5)] * 14)
    assert sorted(map(len, token_groups(pairs, 34))) == [2, 6, 6]
    assert sorted(map(len, token_groups(pairs, 35))) == [7, 7]


def test_the_longer_side_fills_the_budget():
    pairs = pairs_of([(7, 2)] * 4)
    assert [len(batch) for batch in token_groups(pairs, 14)] == [2, 2]


def test_grouping_by_length_wastes_less_on_padding():
    def padding_share(batches):
        padded = [collate(batch) for batch in batches]
        cells = sum(b.src.numel() + b.labels.numel() for b in padded)
        real = sum(int((b.src != PAD).sum()) + b.n_tokens for b in padded)
        return 1 - real / cells

    pairs = random_pairs(500)
    grouped = token_groups(pairs, 300, generator=generator(0))
    size = len(pairs) // len(grouped)
    fixed = [pairs[i : i + size] for i in range(0, len(pairs), size)]
    assert padding_share(grouped) < 0.15 < 0.3 < padding_share(fixed)


def test_without_a_generator_the_order_is_by_length():
    pairs = random_pairs(50)
    flat = [pair for batch in token_groups(pairs, 200) for pair in batch]
    assert [len(tgt) for _, tgt in flat] == sorted(len(tgt) for _, tgt in pairs)


def test_a_generator_mixes_batches_and_pairs_of_one_length():
    pairs = random_pairs(200)
    batches = token_groups(pairs, 200, generator=generator(0))
    longest = [max(len(tgt) for _, tgt in batch) for batch in batches]
    assert longest != sorted(longest)
    alike = pairs_of([(3, 3)] * 20)
    firsts = {
        token_groups(alike, 9, generator=generator(s))[0][0][0][0] for s in range(9)
    }
    assert len(firsts) > 3


def test_no_pairs_are_refused():
    with pytest.raises(InputError, match="no sentence pairs"):
        token_groups([], 10)


@pytest.mark.parametrize("sizes", [(11, 2), (2, 11)])
def test_a_sentence_longer_than_the_budget_is_refused(sizes):
    pairs = pairs_of([(3, 5), sizes])
    with pytest.raises(InputError, match="11 tokens .* budget of 10"):
        token_groups(pairs, 10)
    assert len(token_groups(pairs, 11)) == 2


# Epochs


PAIRS = random_pairs(40)


def stream(n, *, seed=0, first_step=0):
    return list(islice(epochs(PAIRS, 60, seed=seed, first_step=first_step), n))


def test_each_epoch_has_every_pair_once():
    per_epoch = Counter(epoch for epoch, _ in stream(100))
    pairs = Counter(
        id(pair) for epoch, batch in stream(100) if epoch == 1 for pair in batch
    )
    assert per_epoch[0] > 5  # the test needs several batches
    assert per_epoch[1] > 5
    assert pairs == Counter(map(id, PAIRS))


def test_the_order_depends_on_the_seed_and_the_epoch_alone():
    first = stream(40, seed=3)
    torch.manual_seed(99)  # the global state is not asked
    torch.rand(5)
    assert stream(40, seed=3) == first
    assert stream(40, seed=4) != first
    epoch_0, epoch_1 = ([batch for e, batch in first if e == epoch] for epoch in (0, 1))
    assert epoch_0 != epoch_1[: len(epoch_0)]


@given(n=st.integers(0, 50))
@few
def test_a_resumed_run_sees_what_comes_next(n):
    assert stream(20, seed=5, first_step=n) == stream(n + 20, seed=5)[n:]
