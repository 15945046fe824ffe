"""Operations by formula are those counted, and seconds are taken in rounds."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from annotated_transformer import speed
from annotated_transformer.config import TransformerConfig
from annotated_transformer.devices import other_attention
from annotated_transformer.ladder import all_heads_at_once
from annotated_transformer.transformer import Transformer

TINY = TransformerConfig(
    vocab_size=61, d_model=16, d_ff=32, n_heads=2, n_layers=3, max_length=20, dropout=0
)


@pytest.mark.parametrize("tgt_vocab_size", [None, 53])
def test_operations_by_formula_are_those_counted(tgt_vocab_size):
    c = TransformerConfig(**(vars(TINY) | {"tgt_vocab_size": tgt_vocab_size}))
    model = Transformer(c)
    src, tgt = torch.ones(2, 7).long(), torch.ones(2, 5).long()
    attend = other_attention(model, lambda _: all_heads_at_once)
    with attend, FlopCounterMode(display=False) as counter:
        model(src, tgt)
    assert 2 * speed.pair_flops(c, 7, 5) == counter.get_total_flops()


def test_a_step_takes_three_times_its_forward_pass():
    model, batch = Transformer(TINY), speed.random_batch(TINY, 3, 7)
    attend = other_attention(model, lambda _: all_heads_at_once)
    with attend, FlopCounterMode(display=False) as counter:
        model(batch.src, batch.tgt_in).sum().backward()
    # Nothing asks for the gradient of the first layers' inputs but the embeddings.
    assert speed.training_flops(TINY, 3, 7) == counter.get_total_flops()


def test_every_task_runs_once_a_round():
    runs: list[str] = []
    tasks = {name: lambda n=name: runs.append(n) for name in "ab"}
    times = speed.interleave(tasks, rounds=3)
    assert runs == ["b", "a", "a", "b", "b", "a", "a", "b"]
    assert [len(seconds) for seconds in times.values()] == [3, 3]


def test_another_clock_may_count():
    ticks = iter(range(100))
    times = speed.interleave({"a": lambda: None}, rounds=2, clock=lambda: next(ticks))
    assert times == {"a": [1, 1]}


def test_a_product_has_a_speed():
    assert speed.product_speed(16, rounds=1) > 0
