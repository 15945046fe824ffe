"""Pruning: a head that is gone and a head that is silent are the same to the rest."""

import pytest
import torch
from torch.testing import assert_close

from annotated_transformer.attention import MultiHeadAttention
from annotated_transformer.config import TransformerConfig
from annotated_transformer.decoding import greedy_search
from annotated_transformer.lessons import edited, off
from annotated_transformer.pruning import prune, without_heads
from annotated_transformer.transformer import Transformer

SIZES = {"d_model": 10, "n_heads": 5, "d_k": 3, "d_v": 7}


def silent(attention, heads):
    for head in heads:
        off(attention, head)
    return attention


@pytest.mark.parametrize("gone", [[], [0], [4], [1, 3], [0, 1, 2, 4]])
def test_an_attention_without_heads_says_what_it_says_with_silent_ones(gone):
    torch.manual_seed(0)
    full, x, memory = (
        MultiHeadAttention(**SIZES),
        torch.randn(2, 4, 10),
        torch.randn(2, 6, 10),
    )
    small = without_heads(full, gone)
    silent(full, gone)
    assert_close(small(x), full(x))
    assert_close(small(x, memory), full(x, memory))
    assert small.query_key_value.weight.shape == ((5 - len(gone)) * 13, 10)
    assert small.output.weight.shape == (10, (5 - len(gone)) * 7)
    assert full.n_heads == 5  # it is a copy


@pytest.mark.parametrize("gone", [[0, 1, 2, 3, 4], [5], [-1]])
def test_heads_that_cannot_go_are_named(gone):
    with pytest.raises(ValueError, match=r"of 5 can't go: .*leave one"):
        without_heads(MultiHeadAttention(**SIZES), gone)


def tiny():
    torch.manual_seed(0)
    sizes = {"d_model": 12, "d_ff": 20, "n_heads": 3, "n_layers": 2}
    return Transformer(TransformerConfig(vocab_size=17, **sizes)).eval()


def test_a_pruned_model_is_smaller_and_writes_what_the_model_with_silent_heads_does():
    model, src = tiny(), torch.tensor([[5, 9, 2, 0], [7, 3, 11, 2]])
    heads = [("encoder.layers.0.self_attention", 2)]
    heads += [("decoder.layers.1.cross_attention", n) for n in (0, 2)]
    small = prune(model, heads)
    triples = [("encoder", 0, 2), ("cross", 1, 0), ("cross", 1, 2)]
    quiet = edited(model, triples, off)
    tgt = torch.tensor([[1, 5, 6], [1, 8, 4]])
    assert_close(small(src, tgt), quiet(src, tgt))
    assert greedy_search(small, src) == greedy_search(quiet, src)
    sizes = [sum(p.numel() for p in m.parameters()) for m in (model, small)]
    assert sizes[0] - sizes[1] == 3 * 4 * 4 * 12  # heads, matrices, d_k, d_model
    assert small.src_embeddings is small.tgt_embeddings


def test_only_an_attention_has_heads_to_lose():
    with pytest.raises(ValueError, match="'encoder.norm' is no attention"):
        prune(tiny(), [("encoder.norm", 0)])
