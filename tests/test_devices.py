"""The fast road gives the same numbers, and leaves everything as it was."""

import pytest
import torch
from torch.nn.attention import SDPBackend, _cur_sdpa_kernel_backends

from annotated_transformer.config import TransformerConfig
from annotated_transformer.devices import fast_products
from annotated_transformer.transformer import Transformer


def settings():
    return torch.get_float32_matmul_precision(), set(_cur_sdpa_kernel_backends())


def test_settings_hold_inside_only_even_after_an_error():
    before = settings()
    with pytest.raises(KeyError), fast_products("cpu"):
        assert settings() == ("medium", {SDPBackend.MATH})
        raise KeyError
    assert settings() == before
    with fast_products("cuda"):
        assert torch.get_float32_matmul_precision() == "high"
    assert settings() == before


def test_the_model_says_the_same():
    torch.manual_seed(0)
    model = Transformer(TransformerConfig(vocab_size=97, d_model=32, d_ff=64)).eval()
    src, tgt = torch.randint(4, 97, (3, 7)), torch.randint(4, 97, (3, 5))
    src[0, 5:] = 0
    plain = model(src, tgt)
    with fast_products("cpu"):
        fast = model(src, tgt)
    # bfloat16 units, where there are any, round to about three digits.
    torch.testing.assert_close(fast, plain, atol=0.05, rtol=0.05)
