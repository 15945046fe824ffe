"""Attention equals PyTorch's, keeps heads and positions apart, and can be watched."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from annotated_transformer.attention import (
    MultiHeadAttention,
    attention,
    fused_attention,
)
from annotated_transformer.cache import CachedSelfAttention
from annotated_transformer.config import TransformerConfig
from annotated_transformer.masks import causal_mask, padding_mask
from annotated_transformer.recording import record_attention
from annotated_transformer.transformer import Transformer

BATCH, HEADS, QUERY, KEY, D_K, D_V = 2, 3, 5, 7, 11, 13


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def query_key_value(d_v: int = D_V) -> list[torch.Tensor]:
    query = random(BATCH, HEADS, QUERY, D_K, seed=1)
    key = random(BATCH, HEADS, KEY, D_K, seed=2)
    value = random(BATCH, HEADS, KEY, d_v, seed=3)
    return [x.requires_grad_() for x in (query, key, value)]


def random_mask(*shape: int) -> torch.Tensor:
    mask = random(*shape, seed=4) > 0
    mask[..., 0] = True  # nobody is left without a key
    return mask


MASKS = {
    "none": None,
    "keys": random_mask(KEY),
    "query and key": random_mask(QUERY, KEY),
    "padding": random_mask(BATCH, 1, 1, KEY),
    "one for each head": random_mask(BATCH, HEADS, QUERY, KEY),
}
parametrize_mask = pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())


# Eq. 1


def test_attention_finds_the_numbers_worked_out_on_paper():
    query = torch.tensor([[2.0, 0.0, 0.0, 0.0]])
    key = torch.tensor([[math.log(3), 5.0, 5.0, 5.0], [0.0, 7.0, 7.0, 7.0]])
    value = torch.tensor([[4.0, 8.0, 0.0], [0.0, 4.0, 2.0]])
    # Scores 2 ln 3 / sqrt(4) = ln 3 and 0, so the weights are 3 : 1.
    output, weights = attention(query, key, value)
    assert_close(weights, torch.tensor([[0.75, 0.25]]))
    assert_close(output, torch.tensor([[3.0, 7.0, 0.5]]))


@parametrize_mask
def test_attention_equals_torch(mask):
    query, key, value = query_key_value()
    output, weights = attention(query, key, value, mask)
    torch_mask = None if mask is None else torch.atleast_2d(mask)
    assert_close(output, F.scaled_dot_product_attention(query, key, value, torch_mask))
    assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))
    if mask is not None:
        assert (weights[~mask.expand_as(weights)] == 0).all()


@pytest.mark.parametrize("d_v", [D_V, D_K])  # a CPU fuses only where they are equal
@parametrize_mask
def test_fused_equals_explicit_in_output_and_gradients(mask, d_v):
    inputs = query_key_value(d_v)
    explicit, fused = attention(*inputs, mask)[0], fused_attention(*inputs, mask)
    assert_close(fused, explicit)
    upstream = random(*explicit.shape, seed=5)
    assert_close(
        torch.autograd.grad(fused, inputs, upstream),
        torch.autograd.grad(explicit, inputs, upstream),
    )


@pytest.mark.parametrize("version", [lambda *a: attention(*a)[0], fused_attention])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_query_that_may_look_nowhere_gets_zeros_and_finite_gradients(version, dtype):
    inputs = [x.detach().to(dtype).requires_grad_() for x in query_key_value()]
    mask = random_mask(BATCH, 1, QUERY, KEY)
    mask[1, :, 2] = False
    output = version(*inputs, mask)
    assert (output[1, :, 2] == 0).all()
    assert (output[0] != 0).all()
    gradients = torch.autograd.grad(output.sum(), inputs)
    assert all(g.isfinite().all() for g in gradients)
    assert (gradients[0][1, :, 2] == 0).all()


def test_weights_of_a_query_that_may_look_nowhere_are_zero():
    _, weights = attention(*query_key_value(), torch.zeros(1, KEY, dtype=torch.bool))
    assert (weights == 0).all()


def test_a_masked_key_gets_nothing_however_badly_the_others_fit():
    query, key = torch.tensor([[1e6]]), torch.tensor([[-1.0], [0.0], [-1.0]])
    mask = torch.tensor([True, False, True])
    output, weights = attention(query, key, torch.tensor([[3.0], [0.0], [7.0]]), mask)
    assert weights.tolist() == [[0.5, 0.0, 0.5]]  # a mask of -10,000 would give zeros
    assert output.item() == 5.0


@given(order=st.permutations(range(KEY)))
@settings(max_examples=10, deadline=None, derandomize=True)
def test_the_order_of_keys_does_not_matter(order):
    query, key, value = query_key_value()
    mask = random_mask(QUERY, KEY)
    output, weights = attention(query, key, value, mask)
    shuffled = attention(query, key[:, :, order], value[:, :, order], mask[:, order])
    assert_close(shuffled, (output, weights[..., order]))


@given(order=st.permutations(range(QUERY)))
@settings(max_examples=10, deadline=None, derandomize=True)
def test_queries_do_not_see_each_other(order):
    query, key, value = query_key_value()
    output, _ = attention(query, key, value)
    assert_close(attention(query[:, :, order], key, value)[0], output[:, :, order])


def test_weights_are_those_before_dropout():
    torch.manual_seed(0)
    inputs = query_key_value()
    output, weights = attention(*inputs, dropout=0.5)
    plain_output, plain_weights = attention(*inputs)
    assert_close(weights, plain_weights)
    assert not torch.allclose(output, plain_output)


@pytest.mark.parametrize(
    "version", [lambda *a, **k: attention(*a, **k)[0], fused_attention]
)
def test_dropout_drops_weights_and_scales_up_the_rest(version):
    torch.manual_seed(0)
    n = 1_000
    query, key = torch.zeros(n, 2), torch.zeros(5, 2)  # each weight is 1/5
    # The values are an identity matrix, so the output shows the weights.
    output = version(query, key, torch.eye(5), dropout=0.75)
    assert_close(output.unique(), torch.tensor([0.0, 0.8]))  # 1/5 / (1 - 3/4)
    assert output.count_nonzero() / output.numel() == pytest.approx(0.25, abs=0.03)


# Several heads


def twin(d_model: int, n_heads: int) -> tuple[MultiHeadAttention, nn.Module]:
    """Ours and PyTorch's, with the same random weights."""
    torch.manual_seed(0)
    ours = MultiHeadAttention(d_model, n_heads).double()
    theirs = nn.MultiheadAttention(d_model, n_heads, bias=False, batch_first=True)
    theirs = theirs.double()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.query_key_value.weight)
        theirs.out_proj.weight.copy_(ours.output.weight)
    return ours, theirs


SOURCE = torch.tensor([[5, 6, 7, 8, 9, 2, 4], [5, 6, 2, 0, 0, 0, 0]])


@pytest.mark.parametrize("masked", [False, True])
def test_self_attention_equals_torch(masked):
    ours, theirs = twin(15, HEADS)
    x = random(BATCH, KEY, 15)
    mask = padding_mask(SOURCE) & causal_mask(KEY) if masked else None
    with record_attention(ours) as maps:
        output = ours(x, mask=mask)
    expected, weights = theirs(  # here True means "may not look"
        *(x, x, x),
        attn_mask=~causal_mask(KEY) if masked else None,
        key_padding_mask=SOURCE == 0 if masked else None,
        average_attn_weights=False,
    )
    assert_close(output, expected)
    assert_close(maps[""], weights)
    assert_close(ours(x, mask=mask), expected)  # the fused version


@pytest.mark.parametrize("masked", [False, True])
def test_cross_attention_equals_torch(masked):
    ours, theirs = twin(15, HEADS)
    x, memory = random(BATCH, QUERY, 15, seed=1), random(BATCH, KEY, 15, seed=2)
    with record_attention(ours) as maps:
        output = ours(x, memory, padding_mask(SOURCE) if masked else None)
    expected, weights = theirs(
        *(x, memory, memory),
        key_padding_mask=SOURCE == 0 if masked else None,
        average_attn_weights=False,
    )
    assert_close(output, expected)
    assert_close(maps[""], weights)


def test_heads_of_any_width_equal_one_attention_after_the_other():
    d_model, n_heads, d_k, d_v = 10, 3, 7, 5
    torch.manual_seed(0)
    heads = MultiHeadAttention(d_model, n_heads, d_k=d_k, d_v=d_v).double()
    x, memory = random(2, 5, d_model, seed=1), random(2, 11, d_model, seed=2)
    w_q, w_k, w_v = heads.query_key_value.weight.split([21, 21, 15])
    outputs = []
    for i in range(n_heads):
        query = x @ w_q[i * d_k : (i + 1) * d_k].T
        key = memory @ w_k[i * d_k : (i + 1) * d_k].T
        value = memory @ w_v[i * d_v : (i + 1) * d_v].T
        outputs.append((query @ key.mT / math.sqrt(d_k)).softmax(-1) @ value)
    expected = torch.cat(outputs, -1) @ heads.output.weight.T
    assert_close(heads(x, memory), expected)


def test_as_many_parameters_as_one_head_of_full_width():
    counts = [
        sum(p.numel() for p in MultiHeadAttention(30, n).parameters())
        for n in (1, 3, 5)
    ]
    assert counts == [4 * 30 * 30] * 3  # W^Q, W^K, W^V and W^O


def test_splitting_heads_keeps_the_numbers_of_a_position_together():
    batch, length, n_heads, size = 2, 5, 3, 7
    position = torch.arange(length)[:, None].expand(length, n_heads * size)
    x = position.float().expand(batch, -1, -1)  # each number says where it stands
    heads = MultiHeadAttention(n_heads * size, n_heads).split_heads(x)
    assert heads.shape == (batch, n_heads, length, size)
    for i in range(length):
        assert (heads[:, :, i] == i).all()
    trap = x.reshape(batch, n_heads, length, size)  # the known trap: no transpose
    assert trap.shape == heads.shape
    assert not torch.equal(trap, heads)


def test_splitting_heads_cuts_the_width_in_order():
    x = torch.arange(21.0).view(1, 1, 21)
    heads = MultiHeadAttention(21, 3).split_heads(x)
    assert_close(heads[0, :, 0], x.view(3, 7))


# Keys and values kept between steps


def test_a_cache_gives_the_same_as_attending_to_everything_at_once():
    torch.manual_seed(0)
    heads = MultiHeadAttention(15, HEADS, d_k=7, d_v=2).double()
    x = random(BATCH, KEY, 15)
    cached = CachedSelfAttention(heads, capacity=KEY)
    steps = [cached(x[:, i : i + 1]) for i in range(KEY)]
    assert_close(torch.cat(steps, 1), heads(x, mask=causal_mask(KEY)))


def test_a_cache_goes_on_with_the_rows_it_is_told_to_keep():
    heads = MultiHeadAttention(14, 2, d_k=7, d_v=11)
    cache = CachedSelfAttention(heads, capacity=5)
    cache.keep(torch.tensor([0]))  # nothing there yet: nothing to do
    key, value = random(3, 2, 2, 7, seed=1), random(3, 2, 2, 11, seed=2)
    cache.extend(key, value)
    cache.keep(torch.tensor([0, 2]))
    new_key, new_value = random(2, 2, 1, 7, seed=3), random(2, 2, 1, 11, seed=4)
    all_keys, all_values = cache.extend(new_key, new_value)
    assert_close(all_keys, torch.cat([key[[0, 2]], new_key], 2))
    assert_close(all_values, torch.cat([value[[0, 2]], new_value], 2))


# Watching


CONFIG = TransformerConfig(
    vocab_size=13, d_model=14, d_ff=11, n_heads=2, n_layers=3, dropout=0.0
)
TARGET = torch.tensor([[1, 5, 6, 7, 3], [1, 5, 6, 0, 0]])


def small_model(**changes: float) -> Transformer:
    torch.manual_seed(0)
    return Transformer(TransformerConfig(**{**vars(CONFIG), **changes})).double()


def inputs_of(model: Transformer) -> dict[str, tuple]:
    """Arguments that each attention is called with from now on, by its name."""
    seen: dict[str, tuple] = {}
    for name, module in model.named_modules():
        if isinstance(module, MultiHeadAttention):
            module.register_forward_pre_hook(
                lambda _, args, kwargs, name=name: seen.update(
                    {name: (*args, *kwargs.values())}
                ),
                with_kwargs=True,
            )
    return seen


@pytest.mark.parametrize("training", [False, True])
def test_recorded_maps_come_from_the_same_pass(training):
    model = small_model(dropout=0.4, attention_dropout=0.3).train(training)
    seen = inputs_of(model)
    with record_attention(model) as maps:
        model(SOURCE, TARGET)
    assert set(maps) == {
        f"{stack}.layers.{i}.{use}"
        for i in range(CONFIG.n_layers)
        for stack, use in [
            ("encoder", "self_attention"),
            ("decoder", "self_attention"),
            ("decoder", "cross_attention"),
        ]
    }
    for name, weights in maps.items():
        x, *memory, mask = seen[name]
        memory = memory[0] if memory else x
        module = model.get_submodule(name)
        w_q, w_k, _ = module.query_key_value.weight.chunk(3)
        query, key = ((w @ y.mT).mT for w, y in ((w_q, x), (w_k, memory)))
        query, key = (y.unflatten(-1, (2, 7)).transpose(1, 2) for y in (query, key))
        scores = (query @ key.mT / math.sqrt(7)).masked_fill(~mask, -math.inf)
        assert_close(weights, scores.softmax(-1))
        assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))


@pytest.mark.parametrize("training", [False, True])
def test_watching_changes_neither_the_output_nor_the_model(training):
    model = small_model(dropout=0.4).train(training)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    fields = {name: set(vars(module)) for name, module in model.named_modules()}
    torch.manual_seed(1)
    expected = model(SOURCE, TARGET)
    torch.manual_seed(1)
    with record_attention(model):
        assert_close(model(SOURCE, TARGET), expected)
    assert_close(dict(model.state_dict()), before)
    assert {n: set(vars(m)) for n, m in model.named_modules()} == fields
    assert model.training == training


def test_attention_dropout_still_acts_while_watching():
    model = small_model(attention_dropout=0.5).train()
    with record_attention(model) as first:
        outputs = [model(SOURCE, TARGET)]
    with record_attention(model) as second:
        outputs.append(model(SOURCE, TARGET))
    assert not torch.allclose(*outputs)
    name = "encoder.layers.0.self_attention"  # before any dropout, so alike
    assert_close(first[name], second[name])


def test_maps_hold_the_last_pass_of_the_block_and_no_pass_after_it():
    model = small_model().eval()
    with record_attention(model) as maps:
        model(SOURCE, TARGET)
        model(SOURCE[:, :3], TARGET[:, :2])
    kept = {name: weights.clone() for name, weights in maps.items()}
    assert kept["decoder.layers.0.cross_attention"].shape == (2, 2, 2, 3)
    model(SOURCE, TARGET)
    assert_close(maps, kept)


def test_each_block_watches_its_own_passes():
    model, other = small_model().eval(), small_model().eval()
    with record_attention(model) as outer:
        model(SOURCE, TARGET)
        other(SOURCE, TARGET)  # not the model that is watched
        with record_attention(model) as inner:
            model(SOURCE[:, :3], TARGET)
    assert len(outer) == len(inner) == 9
    assert outer["encoder.layers.0.self_attention"].shape[-2:] == (7, 7)
    assert inner["encoder.layers.0.self_attention"].shape[-2:] == (3, 3)


def test_an_error_in_the_block_ends_the_watching():
    model = small_model().eval()

    def fail_after_a_pass() -> None:
        with record_attention(model) as maps:
            model(SOURCE, TARGET)
            raise KeyError("from the block", maps)

    with pytest.raises(KeyError, match="from the block") as error:
        fail_after_a_pass()
    maps = {name: weights.clone() for name, weights in error.value.args[1].items()}
    assert len(maps) == 9
    model(SOURCE[:, :2], TARGET)  # recorded no more
    assert_close(error.value.args[1], maps)
