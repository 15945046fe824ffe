"""Eight bits a weight: codes, scales, and a whole model rounded in place."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from annotated_transformer.config import TransformerConfig
from annotated_transformer.quantization import dequantize, quantize, quantize_model
from annotated_transformer.transformer import Transformer, parameter_count


def weights(*shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    weight = torch.randn(*shape, generator=g)
    return weight * 4.0 ** torch.arange(-2, shape[0] - 2)[:, None]


def test_five_numbers_on_paper():
    codes, scale = quantize(torch.tensor([[-1.27, -0.5, 0.0, 0.304, 0.62]]))
    assert codes.tolist() == [[-127, -50, 0, 30, 62]]
    assert scale.tolist() == pytest.approx([0.01])


def test_it_equals_pytorchs_rounding_by_channels():
    weight = weights(5, 7)
    codes, scale = quantize(weight)
    zero = torch.zeros(5, dtype=torch.int32)
    theirs = torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -127, 127)
    assert_close(dequantize(codes, scale), theirs)


def test_no_number_moves_by_more_than_half_a_step():
    weight = weights(5, 7)
    codes, scale = quantize(weight)
    moved = (dequantize(codes, scale) - weight).abs()
    assert (moved <= 0.5001 * scale[:, None]).all()
    assert codes.dtype == torch.int8
    assert codes.abs().amax(1).tolist() == [127] * 5


def test_quantizing_twice_changes_nothing_more():
    once = dequantize(*quantize(weights(5, 7)))
    assert_close(dequantize(*quantize(once)), once, rtol=1e-6, atol=0)


@pytest.mark.parametrize("size", [0.0, 1e-45, 1e-30])
def test_rows_of_zeros_and_of_tiny_numbers(size):
    codes, scale = quantize(torch.full((2, 3), size))
    assert scale.isfinite().all() and (scale > 0).all()
    assert_close(
        dequantize(codes, scale), torch.full((2, 3), size), rtol=1e-2, atol=1e-44
    )


def test_what_is_not_finite_has_no_scale():
    with pytest.raises(ValueError, match="not finite|NaN or infinity"):
        quantize(torch.tensor([[1.0, torch.inf]]))


def test_a_model_is_rounded_in_place_and_its_bytes_are_counted():
    config = TransformerConfig(vocab_size=13, d_model=6, d_ff=10, n_heads=3, n_layers=2)
    torch.manual_seed(0)
    model = Transformer(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    before = {name: p.clone() for name, p in model.named_parameters()}
    n_bytes = quantize_model(model)
    matrices = [p for p in model.parameters() if p.dim() == 2]
    n_codes, n_scales = sum(p.numel() for p in matrices), sum(map(len, matrices))
    assert n_bytes == n_codes + 4 * (parameter_count(config) - n_codes + n_scales)
    for name, p in model.named_parameters():
        changed = not torch.equal(p, before[name])
        assert changed == (p.dim() == 2), name
        if changed:
            assert_close(p, dequantize(*quantize(before[name])))
    assert model.src_embeddings.weight is model.tgt_embeddings.weight


def test_a_bare_linear_layer():
    layer = nn.Linear(7, 3)
    assert quantize_model(layer) == 7 * 3 + 4 * 3 + 4 * 3
