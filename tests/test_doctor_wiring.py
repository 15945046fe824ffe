"""What the doctor sees of a model from outside and inside, on small cases."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from annotated_transformer import Transformer, TransformerConfig
from annotated_transformer.doctor import examine
from annotated_transformer.doctor.anatomy import changed_positions, joined_wrongly
from annotated_transformer.doctor.evidence import wrong_waves
from annotated_transformer.doctor.masks import causal, padding
from annotated_transformer.doctor.recorder import Recorder, axis_after
from annotated_transformer.doctor.trace import Trace
from annotated_transformer.doctor.visit import Visit
from annotated_transformer.errors import InputError

TINY = TransformerConfig(
    vocab_size=61, d_model=32, d_ff=48, n_heads=4, n_layers=2, max_length=700
)


@pytest.fixture
def model() -> Transformer:
    torch.manual_seed(0)
    return Transformer(TINY)


def names(report):
    return [cause.name for cause in report.causes]


# Trace


def traced(model, src=(3, 7), tgt=(3, 5)):
    src, tgt = (torch.randint(4, 61, size) for size in (src, tgt))
    return Trace(model.eval(), src=src, tgt=tgt)


def test_a_trace_finds_each_attention_and_its_kind(model):
    kinds = [attention.kind for attention in traced(model).attentions]
    assert kinds == ["encoder"] * 2 + ["decoder", "cross"] * 2


def test_queries_keys_and_weights_have_the_model_s_shapes(model):
    cross = traced(model).of_kind("cross")[0]
    assert cross.query.shape == (3 * 4, 5, 8) and cross.key.shape == (3 * 4, 7, 8)
    assert cross.weights.shape == (3 * 4, 5, 7)
    torch.testing.assert_close(cross.weights.sum(-1), torch.ones(12, 5))
    assert cross.scale == pytest.approx(8**-0.5) and cross.over_keys


def test_a_fused_kernel_that_the_model_chose_is_computed_again_in_the_open(model):
    from torch.nn.attention import SDPBackend, sdpa_kernel

    def chosen(src, tgt):
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            return model(src, tgt)

    plain, fused = traced(model), Trace(chosen, **plain_ids(model))
    assert len(fused.attentions) == len(plain.attentions)


def plain_ids(model):
    return traced(model).ids


def test_positions_are_those_that_were_added(model):
    trace = traced(model)
    tokens, added = trace.positions("tgt")
    torch.testing.assert_close(added, model.positions.table[:5])
    torch.testing.assert_close(
        tokens, model.tgt_embeddings(trace.ids["tgt"])[0].detach()
    )


def test_an_axis_is_followed_through_views_and_transposes():
    x = torch.randn(2, 3, 5)
    with Recorder() as recorder:
        start = x + 1
        end = start.transpose(1, 2).contiguous().view(2, 5, 3)
    first = recorder.latest[next(iter(recorder.latest))]
    path = [node for node in recorder.nodes if node is not first]
    assert end.shape == (2, 5, 3)
    assert axis_after(first, -2, path) == -1 and axis_after(first, -1, path) == -2


def test_heads_joined_rightly_are_not_accused(model):
    assert not any(map(joined_wrongly, traced(model).attentions))


def test_changed_positions_are_those_of_any_row():
    one, two = torch.zeros(4, 5, 2), torch.zeros(4, 5, 2)
    two[1, 3, 0], two[2, 4, 1] = 1, math.nan
    assert changed_positions(one, two) == {3, 4}


def test_queries_and_keys_of_one_length_may_have_a_larger_factor(model):
    def normalized(query, key, value, mask=None, *, dropout=0.0):
        query, key = F.normalize(query, dim=-1), F.normalize(key, dim=-1)
        return F.scaled_dot_product_attention(query, key, value, mask, scale=10.0)

    for module in model.modules():
        if hasattr(module, "attend"):
            module.attend = normalized
    report = examine(model)
    assert report.healthy, str(report)


# Sinusoids


def waves(
    d_model=32, length=9, layout="pairs", power=lambda i, d: 2 * i / d, scale=1.0
):
    position = torch.arange(length)[:, None].double()
    index = torch.arange(d_model // 2).double()
    angle = position / 10_000 ** power(index, d_model)
    if layout == "pairs":
        table = torch.stack([angle.sin(), angle.cos()], -1).flatten(1)
    else:
        table = torch.cat([angle.sin(), angle.cos()], -1)
    return (scale * table).float()


@pytest.mark.parametrize(
    "table",
    [
        waves(),
        waves(layout="halves"),
        waves(d_model=512, length=40),
        waves(scale=0.125),
        waves(power=lambda i, d: i / (d / 2 - 1), layout="halves"),  # tensor2tensor
        torch.randn(9, 32),  # learned
        torch.zeros(9, 32),
    ],
)
def test_right_waves_and_tables_that_are_none_are_left_alone(table):
    assert wrong_waves(table) == ""


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (waves(power=lambda i, d: 2 * i // d), "wavelengths"),
        (waves(power=lambda i, d: 2 * i), "one factor|wavelengths"),
        (waves(d_model=32) * torch.tensor([1.0, -1.0]).repeat(16), "one wave|turns|"),
        (torch.cat([waves()[:, ::2], waves()[:, ::2].cos()], 1), "one wave"),
    ],
)
def test_wrong_waves_are_named(table, says):
    import re

    assert re.search(says, wrong_waves(table))


# Masks


TRIANGLE = torch.ones(5, 5, dtype=torch.bool).tril()
REAL = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]).bool()


@pytest.mark.parametrize(
    "mask",
    [
        TRIANGLE,
        ~TRIANGLE,
        TRIANGLE[None, None],
        TRIANGLE.int(),
        torch.zeros(5, 5).masked_fill(~TRIANGLE, -math.inf),
        torch.zeros(5, 5).masked_fill(~TRIANGLE, -1e9),
    ],
)
def test_a_causal_mask_may_mean_look_or_hide(mask):
    assert causal(mask).kind == "healthy"


@pytest.mark.parametrize(
    ("mask", "cause"),
    [
        (TRIANGLE.T, "mask_axis"),
        (torch.ones(5, 5).tril(1).bool(), "causal_mask_missing"),
        (torch.ones(5, 5).bool(), "causal_mask_missing"),
        (torch.zeros(5, 5).masked_fill(~TRIANGLE, -1e-9), "mask_tiny"),
        (torch.ones(4, 4), "mask_axis"),
    ],
)
def test_a_wrong_causal_mask_is_named(mask, cause):
    assert causal(mask).causes[0] == cause


@pytest.mark.parametrize(
    "mask", [REAL, ~REAL, REAL[:, None, None, :], REAL[:, None], REAL.float()]
)
def test_a_padding_mask_may_mean_look_or_hide(mask):
    assert padding(mask, REAL).kind == "healthy"


@pytest.mark.parametrize(
    ("mask", "cause"),
    [
        (REAL[:, None, :, None].expand(2, 1, 5, 5), "mask_axis"),
        (REAL.T, "mask_axis"),
        (torch.ones(2, 1, 1, 5).bool(), "padding_mask_missing"),
    ],
)
def test_a_wrong_padding_mask_is_named(mask, cause):
    assert padding(mask, REAL).causes[0] == cause


def test_mask_functions_are_examined_if_they_are_given(model):
    report = examine(model, causal_mask=lambda n: torch.ones(n, n).triu().bool())
    assert "mask_axis" in names(report)


# The examination as a whole


def test_what_cannot_be_traced_is_examined_from_outside(model, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("compiled")

    monkeypatch.setattr("annotated_transformer.doctor.visit.Trace", fail)
    monkeypatch.setattr("annotated_transformer.doctor.dependence.Trace", fail)
    monkeypatch.setattr(
        "annotated_transformer.transformer.causal_mask",
        lambda n, device: torch.ones(n, n, dtype=torch.bool),
    )
    report = examine(model)
    assert names(report)[0] == "causal_mask_missing"
    assert "compiled" in report.facts["not_traced"]


def test_a_function_without_a_module_is_examined_from_outside(model):
    model.eval()
    report = examine(lambda src, tgt: model(src, tgt), 61)
    assert report.healthy
    assert any("give the module" in result.says for result in report.results)


def test_a_vocabulary_too_small_by_one_is_the_finding(model):
    assert names(examine(model, vocab_size=62))[0] == "vocab_size"


def test_a_model_that_fails_on_all_ids_cannot_be_examined():
    class Broken(nn.Module):
        def forward(self, src: Tensor, tgt: Tensor) -> Tensor:
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(InputError, match="mat1 and mat2"):
        examine(Broken(), 61)


def test_logits_of_another_shape_are_refused_with_the_shape(model):
    with pytest.raises(InputError, match=r"\(3, 61\)"):
        examine(lambda src, tgt: model(src, tgt)[:, -1], 61)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_too_rough_to_measure_with_are_refused(model, dtype):
    with pytest.raises(InputError, match=r"model\.float\(\)"):
        examine(model.to(dtype))


def test_weights_that_are_not_there_are_refused(model):
    with pytest.raises(InputError, match="meta"):
        examine(model.to("meta"))


def test_a_compiled_model_is_examined_as_it_was_before(model):
    assert examine(torch.compile(model, backend="eager")).healthy


class Wrapped(nn.Module):
    """A module that has no embedding of PyTorch's, which would tell the vocabulary."""

    def __init__(self, model: Transformer, factor: float = 1.0):
        super().__init__()
        self.model, self.factor, self.calls = model, factor, 0

    def forward(self, src: Tensor, tgt: Tensor) -> tuple[Tensor, str]:
        self.calls += 1
        return self.model(src, tgt) * self.factor, "and more"


def test_a_vocabulary_is_read_off_the_logits_and_the_call_taken_back(model):
    wrapped = Wrapped(model)
    report = examine(wrapped)
    assert report.healthy and wrapped.calls == 0
    assert "all 61 ids" in report.results[0].says


def test_of_nan_only_nan_is_said(model):
    report = examine(Wrapped(model, math.nan))
    assert "not finite" in report.findings[0].says
    assert not {"memory_ignored", "dropout_never"} & set(names(report))


def test_nothing_of_the_reader_s_is_changed(model):
    model.train()
    model.encoder.layers[1].eval()
    optimizer = torch.optim.Adam(model.parameters())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    random = torch.get_rng_state()
    examine(model, optimizer=optimizer)
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)
    assert not optimizer.state and all(p.grad is None for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_the_same_patient_gives_the_same_report(model):
    one, two = examine(model), examine(model)
    assert one.results == two.results


def test_words_of_a_row_differ_and_are_no_specials(model):
    from annotated_transformer.doctor.adapters import as_patient

    words = Visit(as_patient(model)).words(3, 57)
    assert words.min() > 3 and words.max() < 61
    assert all(len(set(row.tolist())) == 57 for row in words)
