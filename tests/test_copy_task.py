"""The copy task: its batches look like those of translation, start and end included."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from annotated_transformer.config import TransformerConfig
from annotated_transformer.copy_task import FIRST_SYMBOL, copy_batch, exact_match
from annotated_transformer.decoding import greedy_search
from annotated_transformer.errors import InputError
from annotated_transformer.special import BOS, EOS, UNK
from annotated_transformer.transformer import Transformer


@given(batch=st.integers(1, 5), length=st.integers(1, 7), vocab_size=st.integers(5, 13))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_the_target_is_the_source_between_start_and_end(batch, length, vocab_size):
    made = copy_batch(batch, length, vocab_size)
    symbols = made.src[:, :-1]
    assert made.src.shape == (batch, length + 1)
    assert made.tgt.shape == (batch, length + 2)
    assert (made.src[:, -1] == EOS).all()
    assert (made.tgt[:, 0] == BOS).all()
    assert torch.equal(made.labels, made.src)
    assert ((symbols > UNK) & (symbols < vocab_size)).all()  # no special token
    assert made.n_tokens == batch * (length + 1)


def test_every_symbol_occurs():
    symbols = copy_batch(50, 20, 11).src[:, :-1]
    assert symbols.unique().tolist() == list(range(FIRST_SYMBOL, 11))


def test_training_starts_from_the_token_that_decoding_starts_from(monkeypatch):
    torch.manual_seed(0)
    sizes = {"d_model": 6, "d_ff": 7, "n_heads": 3, "n_layers": 1}
    model = Transformer(TransformerConfig(vocab_size=11, **sizes))
    batch = copy_batch(2, 5, 11)
    fed = []
    step = model.step
    monkeypatch.setattr(model, "step", lambda ids, *a: fed.append(ids) or step(ids, *a))
    greedy_search(model, batch.src)
    assert torch.equal(fed[0], batch.tgt_in[:, :1])


def test_a_generator_decides_the_symbols():
    def batch(seed):
        return copy_batch(3, 7, 11, generator=torch.Generator().manual_seed(seed)).src

    assert torch.equal(batch(0), batch(0))
    assert not torch.equal(batch(0), batch(1))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((2, 3, 4), r"vocab_size \(4\) must be above 4"),
        ((0, 3, 5), r"batch \(0\) and length \(3\)"),
        ((2, 0, 5), r"batch \(2\) and length \(0\)"),
    ],
)
def test_sizes_that_leave_nothing_to_copy_are_refused(sizes, message):
    with pytest.raises(InputError, match=message):
        copy_batch(*sizes)


def test_exact_match_is_the_percentage_of_perfect_copies():
    src = torch.tensor([[5, 6, EOS], [7, 8, EOS], [5, 5, EOS], [9, 7, EOS]])
    outputs = [[5, 6], [8, 7], [5], [9, 7]]
    assert exact_match(outputs, src) == 50.0
    assert exact_match([[5, 6], [7, 8], [5, 5], [9, 7]], src) == 100.0
    with pytest.raises(ValueError, match="argument 2 is longer"):
        exact_match([[5, 6]], src)
