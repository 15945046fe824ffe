"""Sizes are checked before a model is made, and are Table 3's by default."""

import math
from dataclasses import FrozenInstanceError

import pytest

from annotated_transformer.config import (
    BASE,
    BIG,
    SMALL,
    TABLE_3,
    TINY,
    TransformerConfig,
)
from annotated_transformer.errors import InputError


def test_the_defaults_are_the_base_model_of_table_3():
    assert TransformerConfig() == BASE
    sizes = (BASE.n_layers, BASE.d_model, BASE.d_ff, BASE.n_heads, BASE.dropout)
    assert sizes == (6, 512, 2_048, 8, 0.1)
    assert (BASE.key_size, BASE.value_size) == (64, 64)


def test_the_big_model_is_table_3s_last_row():
    sizes = (BIG.n_layers, BIG.d_model, BIG.d_ff, BIG.n_heads, BIG.dropout)
    assert sizes == (6, 1_024, 4_096, 16, 0.3)
    assert (BIG.key_size, BIG.value_size) == (64, 64)


def test_table_3_varies_what_its_rows_say():
    shown = {name: config for name, (config, _) in TABLE_3.items()}
    heads = [shown[f"A h={h}"] for h in (1, 4, 16, 32)]
    assert [(c.key_size, c.value_size) for c in heads] == [
        (512, 512),
        (128, 128),
        (32, 32),
        (16, 16),
    ]
    assert [shown[f"B d_k={d_k}"].key_size for d_k in (16, 32)] == [16, 32]
    assert {shown[f"B d_k={d_k}"].value_size for d_k in (16, 32)} == {64}
    widths = [shown["C d_model=256"], shown["C d_model=1024"]]
    assert [(c.d_model, c.key_size, c.value_size) for c in widths] == [
        (256, 32, 32),
        (1_024, 128, 128),
    ]
    assert [shown[f"C N={n}"].n_layers for n in (2, 4, 8)] == [2, 4, 8]
    assert [shown[f"C d_ff={d_ff}"].d_ff for d_ff in (1_024, 4_096)] == [1_024, 4_096]
    assert [shown[f"D P={p}"].dropout for p in (0.0, 0.2)] == [0.0, 0.2]
    assert shown["E learned"].positions == "learned"


@pytest.mark.parametrize("preset", [SMALL, TINY])
def test_the_small_presets_depart_from_the_paper_by_pre_norm(preset):
    assert preset.norm == "pre"
    assert preset.key_size * preset.n_heads == preset.d_model


def test_head_sizes_follow_from_the_width_unless_given():
    config = TransformerConfig(d_model=30, n_heads=5, d_k=7)
    assert (config.key_size, config.value_size) == (7, 6)
    config = TransformerConfig(d_model=30, n_heads=7, d_k=2, d_v=3)
    assert (config.key_size, config.value_size) == (2, 3)


def test_a_config_never_changes():
    with pytest.raises(FrozenInstanceError):
        BASE.d_model = 7


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"d_model": 10, "n_heads": 3}, r"d_model \(10\) .* n_heads \(3\)"),
        ({"d_model": 10, "n_heads": 3, "d_k": 5}, r"d_model \(10\) .* n_heads \(3\)"),
        ({"d_model": 15, "n_heads": 5}, r"d_model \(15\) must be even"),
        ({"vocab_size": 0}, "vocab_size .* not 0"),
        ({"tgt_vocab_size": 0}, "tgt_vocab_size .* not 0"),
        ({"n_heads": -2}, "n_heads .* not -2"),
        ({"n_layers": 2.5}, "n_layers .* not 2.5"),
        ({"n_layers": True}, "n_layers .* not True"),
        ({"n_layers": 10**8}, "n_layers .* not 100000000"),
        ({"d_model": 10**9}, "d_model .* not 1000000000"),
        ({"d_ff": "7"}, "d_ff .* not '7'"),
        ({"d_k": 0}, "d_k .* not 0"),
        ({"d_v": -1}, "d_v .* not -1"),
        ({"max_length": 0}, "max_length .* not 0"),
        ({"d_model": None}, "d_model .* not None"),
        ({"dropout": 1.0}, r"^dropout should be less than 1, not 1.0"),
        ({"dropout": -0.1}, r"^dropout should be greater .* 0, not -0.1"),
        ({"dropout": math.nan}, "^dropout should be a finite number, not nan"),
        ({"attention_dropout": 1.5}, r"attention_dropout .* less than 1, not 1.5"),
        ({"activation": "step"}, "activation .*'relu', .*'tanh', not 'step'"),
        ({"norm": "none"}, "norm .*'post' or 'pre', not 'none'"),
        ({"positions": "no"}, "positions .*'sinusoidal' or 'learned', not 'no'"),
        ({"d_modle": 8}, "there is no setting 'd_modle'"),
    ],
)
def test_sizes_that_make_no_model_are_refused_with_the_numbers(sizes, message):
    with pytest.raises(InputError, match=message):
        TransformerConfig(**sizes)


def test_learned_positions_may_have_an_odd_width():
    config = TransformerConfig(d_model=15, n_heads=5, positions="learned")
    assert config.key_size == 3
