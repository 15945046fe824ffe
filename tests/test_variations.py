"""Later layers in the paper's model, and the small Table 3 that compares them."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from annotated_transformer.config import TABLE_3, TransformerConfig
from annotated_transformer.studies import table3
from annotated_transformer.transformer import Transformer
from annotated_transformer.variations import GatedFeedForward, gated, rms_norms


def model(norm="pre"):
    torch.manual_seed(0)
    sizes = {"d_model": 12, "d_ff": 48, "n_heads": 3, "n_layers": 2}
    config = TransformerConfig(vocab_size=29, norm=norm, **sizes)
    return Transformer(config).eval()


def size(module):
    return sum(p.numel() for p in module.parameters())


def test_the_gated_layer_is_its_formula_with_two_matrices_of_its_own():
    layer, x = GatedFeedForward(5, 7), torch.randn(2, 3, 5)
    w, v = layer.widen.weight.split(7)
    right = (F.gelu(x @ w.T) * (x @ v.T)) @ layer.narrow.weight.T
    assert_close(layer(x), right)


def test_gated_layers_have_about_as_many_parameters_as_those_they_replace():
    changed = model()
    before = size(changed)
    gated(changed)
    layers = [*changed.encoder.layers, *changed.decoder.layers]
    assert all(isinstance(layer.feed_forward, GatedFeedForward) for layer in layers)
    assert 0.95 * before < size(changed) < before


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_every_layer_norm_becomes_an_rms_norm(norm):
    changed = model(norm)
    wanted = sum(isinstance(m, nn.LayerNorm) for m in changed.modules())
    rms_norms(changed)
    found = [m for m in changed.modules() if isinstance(m, nn.RMSNorm)]
    assert len(found) == wanted
    assert not any(isinstance(m, nn.LayerNorm) for m in changed.modules())


@pytest.mark.parametrize("change", [gated, rms_norms])
def test_a_changed_model_sees_no_future_word(change):
    changed = model()
    change(changed)
    src, tgt = torch.randint(4, 29, (2, 5)), torch.randint(4, 29, (2, 6))
    other = tgt.clone()
    other[:, 4:] = 3
    assert_close(changed(src, tgt)[:, :4], changed(src, other)[:, :4])


def test_every_row_of_table_3_is_in_the_small_one_and_beside_it_only_smoothing():
    extra = {"D smoothing=0.0", "D smoothing=0.2"}
    assert set(table3.PAPER) == set(TABLE_3) | extra
    rows = {run["row"] for run in table3.STUDY.runs}
    assert rows == {*table3.PAPER, *table3.TODAY}


def test_a_small_row_differs_from_the_small_base_where_the_papers_differ():
    base = table3.build("base", 0).config
    assert (base.d_model, base.d_ff, base.n_layers, base.key_size) == (64, 256, 3, 8)
    assert table3.build("A h=32", 0).config.key_size == 2
    assert table3.build("B d_k=16", 0).config.key_size == 2
    assert table3.build("B d_k=16", 0).config.value_size == 8
    assert table3.build("C N=8", 0).config.n_layers == 4
    assert table3.build("post-norm", 0).config.norm == "post"
    assert [table3.smoothing_of(f"D smoothing={x}") for x in (0.0, 0.2)] == [0.0, 0.2]
    assert table3.smoothing_of("D P=0.0") == table3.smoothing_of("big") == 0.1


def test_a_run_is_decided_by_its_settings_alone():
    run = {"row": "gated", "seed": 7, "steps": 2, "pairs": 40}
    first = table3.measure(run)
    torch.manual_seed(99)
    assert table3.measure(run) == first
    assert table3.measure({**run, "seed": 8})["loss"] != first["loss"]
