"""Feed-forward, embeddings, positions, layer norm, residuals: each by its formula."""

import math
from typing import get_args, get_type_hints

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from annotated_transformer.config import TransformerConfig
from annotated_transformer.errors import InputError
from annotated_transformer.layers import (
    Embeddings,
    FeedForward,
    LearnedPositions,
    PostNorm,
    PreNorm,
    SinusoidalPositions,
    layer_norm,
    sinusoids,
)

BATCH, LENGTH, D_MODEL, D_FF = 2, 3, 10, 7


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


X = random(BATCH, LENGTH, D_MODEL)


# Feed-forward (§3.3)


def test_feed_forward_is_two_convolutions_of_width_one():
    layer = FeedForward(D_MODEL, D_FF).double()
    widen = nn.Conv1d(D_MODEL, D_FF, kernel_size=1).double()
    narrow = nn.Conv1d(D_FF, D_MODEL, kernel_size=1).double()
    for linear, convolution in ((layer.widen, widen), (layer.narrow, narrow)):
        convolution.weight.data = linear.weight.data[:, :, None]
        convolution.bias.data = linear.bias.data
    assert_close(layer(X), narrow(widen(X.mT).relu()).mT)


def test_feed_forward_treats_each_position_alone():
    layer = FeedForward(D_MODEL, D_FF).double()
    alone = torch.cat([layer(X[:, i : i + 1]) for i in range(LENGTH)], 1)
    assert_close(layer(X), alone)


ACTIVATIONS = get_args(get_type_hints(TransformerConfig)["activation"])


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_each_activation_of_the_config_is_torchs(activation):
    layer = FeedForward(D_MODEL, D_FF, activation=activation).double()
    expected = layer.narrow(getattr(F, activation)(layer.widen(X)))
    assert_close(layer(X), expected)


# Embeddings (§3.4)


def test_embeddings_are_rows_times_the_root_of_d_model():
    layer = Embeddings(5, 9)
    layer.weight.data = torch.arange(45.0).view(5, 9)
    output = layer(torch.tensor([[4, 0], [2, 4], [1, 3]]))
    assert output.shape == (3, 2, 9)
    assert_close(output[1, 0], 3 * torch.arange(18.0, 27.0))  # row 2, sqrt(9)


# Positions (§3.5)


def test_sinusoids_follow_the_formula():
    table = sinusoids(LENGTH * 50, D_MODEL)
    for pos in range(LENGTH * 50):
        for i in range(D_MODEL // 2):
            angle = pos / 10_000 ** (2 * i / D_MODEL)
            assert table[pos, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert table[pos, 2 * i + 1].item() == pytest.approx(
                math.cos(angle), abs=1e-6
            )


@given(pos=st.integers(0, 400), k=st.integers(-100, 100))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_a_shift_by_k_is_the_same_rotation_at_every_position(pos, k):
    pos = max(pos, -k)
    table = sinusoids(600, D_MODEL).double()
    for i in range(D_MODEL // 2):
        angle = k / 10_000 ** (2 * i / D_MODEL)
        rotation = torch.tensor(
            [[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]],
            dtype=torch.float64,
        )
        pair = slice(2 * i, 2 * i + 2)
        assert_close(
            table[pos + k, pair], rotation @ table[pos, pair], atol=1e-6, rtol=0
        )


def test_positions_are_added():
    layer = SinusoidalPositions(LENGTH, D_MODEL)
    x = X.float()
    assert_close(layer(x), x + sinusoids(LENGTH, D_MODEL))
    assert_close(layer(x[:, :1], start=2), x[:, :1] + sinusoids(LENGTH, D_MODEL)[2:])


def test_the_table_of_sinusoids_grows_and_is_never_saved():
    layer = SinusoidalPositions(2, D_MODEL).double()
    x = random(1, 7, D_MODEL)
    assert_close(layer(x, start=4), x + sinusoids(11, D_MODEL)[4:].double())
    assert layer.table.dtype == torch.float64
    assert layer.state_dict() == {}
    assert dict(layer.named_buffers()).keys() == {"table"}  # moves with the model


def test_a_table_grown_while_decoding_still_serves_training():
    layer = SinusoidalPositions(2, D_MODEL)
    with torch.inference_mode():
        layer(torch.zeros(1, 5, D_MODEL))
    assert not layer.table.is_inference()  # data parallel training could not send it
    x = torch.ones(1, 5, D_MODEL, requires_grad=True)
    (layer(x) * x).sum().backward()
    assert_close(x.grad, 2 * x.detach() + sinusoids(5, D_MODEL))


def test_learned_positions_are_rows_of_their_table():
    layer = LearnedPositions(LENGTH + 2, D_MODEL).double()
    layer.table.data = random(LENGTH + 2, D_MODEL, seed=1)
    assert_close(layer(X), X + layer.table[:LENGTH])
    assert_close(layer(X, start=2), X + layer.table[2:])
    layer(X, start=1).sum().backward()
    moved = layer.table.grad.count_nonzero(-1) > 0
    assert moved.tolist() == [False, True, True, True, False]


@pytest.mark.parametrize(("length", "start"), [(6, 0), (1, 5), (3, 3)])
def test_learned_positions_end_with_their_table(length, start):
    layer = LearnedPositions(5, D_MODEL)
    with pytest.raises(InputError, match=f"^{length + start} positions .* 5 learned"):
        layer(torch.zeros(BATCH, length, D_MODEL), start)


# Layer norm (§3.1)


def test_layer_norm_equals_torch():
    gain, bias = random(D_MODEL, seed=1), random(D_MODEL, seed=2)
    x = 3 * X + 5
    expected = F.layer_norm(x, (D_MODEL,), gain, bias)
    assert_close(layer_norm(x, gain, bias), expected)
    module = nn.LayerNorm(D_MODEL, eps=1e-3).double()
    module.weight.data, module.bias.data = gain, bias
    assert_close(layer_norm(x, gain, bias, eps=1e-3), module(x))


def test_layer_norm_with_either_known_mistake_would_differ():
    gain, bias = torch.ones(D_MODEL).double(), torch.zeros(D_MODEL).double()
    x = X / 100  # a variance of about 1e-4, where eps = 1e-5 matters
    centered = x - x.mean(-1, keepdim=True)
    bessel = centered / (x.var(-1, keepdim=True) + 1e-5).sqrt()
    outside = centered / (x.std(-1, correction=0, keepdim=True) + 1e-5)
    right = layer_norm(x, gain, bias)
    assert_close(right, F.layer_norm(x, (D_MODEL,)))
    for wrong in (bessel, outside):
        assert (wrong - right).abs().max() > 0.01


# Residuals


def doubled(x: torch.Tensor) -> torch.Tensor:
    return 2 * x


def residual(kind: type[nn.Module], dropout: float = 0.0) -> nn.Module:
    layer = kind(D_MODEL, dropout).double()
    layer.norm.weight.data = random(D_MODEL, seed=1)
    layer.norm.bias.data = random(D_MODEL, seed=2)
    return layer


def test_post_norm_is_the_printed_formula():
    layer = residual(PostNorm)
    expected = F.layer_norm(X + 2 * X, (D_MODEL,), layer.norm.weight, layer.norm.bias)
    assert_close(layer(X, doubled), expected)


def test_pre_norm_leaves_the_road_past_the_sublayer_free():
    layer = residual(PreNorm)
    normed = F.layer_norm(X, (D_MODEL,), layer.norm.weight, layer.norm.bias)
    assert_close(layer(X, doubled), X + 2 * normed)


@pytest.mark.parametrize("kind", [PostNorm, PreNorm])
def test_dropout_falls_on_the_sublayer_before_the_sum(kind):
    torch.manual_seed(0)
    layer = residual(kind, dropout=0.75)
    layer.norm = nn.Identity()
    added = layer(X, torch.ones_like) - X
    assert added.round(decimals=9).unique().tolist() == [0.0, 4.0]  # 1 / (1 - 3/4)
    assert_close(layer.eval()(X, torch.ones_like), X + 1)
