"""The smoothed loss: by cross entropy, by KL divergence and fused, it is the same."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from annotated_transformer.loss import (
    label_smoothed_loss,
    smoothed_kl,
    smoothed_targets,
)
from annotated_transformer.special import PAD

N, VOCAB, D_MODEL = 5, 7, 3
LABELS = torch.tensor([4, PAD, 1, 6, PAD])
REAL = LABELS != PAD
smoothings = pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.6])


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def features_and_weight() -> tuple[torch.Tensor, torch.Tensor]:
    features, weight = random(N, D_MODEL, seed=1), random(VOCAB, D_MODEL, seed=2)
    return features.requires_grad_(), weight.requires_grad_()


def torch_loss(features, weight, labels, smoothing):
    """PyTorch's own, told that padding is no class."""
    logits = (features @ weight.T)[:, 1:]
    options = {"ignore_index": -1, "label_smoothing": smoothing, "reduction": "sum"}
    return F.cross_entropy(logits, labels - 1, **options)


# The target as a distribution


def test_smoothed_targets_on_paper():
    targets = smoothed_targets(torch.tensor([2, PAD]), vocab_size=5, smoothing=0.4)
    expected = [[0.0, 0.1, 0.7, 0.1, 0.1], [0.0] * 5]  # 0.4 over four real tokens
    assert_close(targets, torch.tensor(expected))


@given(
    labels=st.lists(st.integers(0, 10), min_size=1, max_size=7),
    smoothing=st.floats(0, 0.9),
)
@settings(max_examples=20, deadline=None, derandomize=True)
def test_targets_sum_to_one_for_labels_and_to_zero_for_padding(labels, smoothing):
    targets = smoothed_targets(torch.tensor(labels), 11, smoothing)
    assert_close(targets.sum(-1), (torch.tensor(labels) != PAD).float())
    assert (targets[:, PAD] == 0).all()
    assert (targets >= 0).all()


# The KL divergence


def test_kl_is_zero_exactly_where_the_model_says_the_target():
    targets = smoothed_targets(LABELS[REAL], VOCAB, 0.1)
    says = targets.log()  # log 0 at padding
    says[:, PAD] = 7.0  # a score that must not count
    assert smoothed_kl(says, LABELS[REAL], 0.1).item() == pytest.approx(0, abs=1e-6)
    wrong = says + torch.eye(VOCAB)[1]
    assert smoothed_kl(wrong, LABELS[REAL], 0.1).item() > 0.01


@smoothings
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_kl_is_finite_for_any_model_and_so_is_its_gradient(smoothing, scale):
    logits = (scale * random(N, VOCAB)).float().requires_grad_()
    loss = smoothed_kl(logits, LABELS, smoothing)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.isfinite()
    assert gradient.isfinite().all()
    assert (gradient[~REAL] == 0).all()
    assert (gradient[:, PAD] == 0).all()


def test_kl_does_not_change_the_logits():
    logits = random(N, VOCAB).float()
    before = logits.clone()
    smoothed_kl(logits, LABELS)
    assert_close(logits, before)


# The loss


@pytest.fixture(params=["as installed", "as in older torch"])
def either_torch(request, monkeypatch):
    """The fused call is new in torch 2.13: without it, the loss must be the same."""
    if request.param == "as in older torch":
        monkeypatch.delattr(F, "linear_cross_entropy", raising=False)


@smoothings
@pytest.mark.usefixtures("either_torch")
def test_loss_and_gradients_equal_torchs_cross_entropy(smoothing):
    inputs = features_and_weight()
    ours = label_smoothed_loss(*inputs, LABELS, smoothing=smoothing)
    theirs = torch_loss(*inputs, LABELS, smoothing)
    assert_close(ours, theirs)
    assert_close(torch.autograd.grad(ours, inputs), torch.autograd.grad(theirs, inputs))


@pytest.mark.usefixtures("either_torch")
def test_loss_equals_torchs_at_a_size_that_is_cut_into_chunks():
    features, weight = random(613, 5, seed=1).float(), random(1_009, 5, seed=2).float()
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 1_009, (613,), generator=generator)
    ours = label_smoothed_loss(features, weight, labels)
    assert_close(ours, torch_loss(features, weight, labels, 0.1))


@smoothings
@pytest.mark.usefixtures("either_torch")
def test_loss_is_the_kl_divergence_plus_the_entropy_of_the_targets(smoothing):
    features, weight = (x.float() for x in features_and_weight())
    loss = label_smoothed_loss(features, weight, LABELS, smoothing=smoothing)
    targets = smoothed_targets(LABELS, VOCAB, smoothing)
    entropy = -torch.special.xlogy(targets, targets).sum()
    assert_close(loss, smoothed_kl(features @ weight.T, LABELS, smoothing) + entropy)


def test_a_model_that_knows_nothing_loses_the_log_of_the_vocabulary():
    loss = label_smoothed_loss(torch.zeros(N, D_MODEL), torch.randn(VOCAB, 3), LABELS)
    # Three labels, six real tokens.
    assert loss.item() == pytest.approx(3 * math.log(6))


@pytest.mark.usefixtures("either_torch")
def test_padded_positions_count_for_nothing():
    features, weight = features_and_weight()
    loss = label_smoothed_loss(features, weight, LABELS)
    gradients = torch.autograd.grad(loss, [features, weight])
    assert (gradients[0][~REAL] == 0).all()
    other = torch.where(REAL[:, None], features, 1e3).detach().requires_grad_()
    changed = label_smoothed_loss(other, weight, LABELS)
    assert_close(changed, loss)
    assert_close(torch.autograd.grad(changed, [other, weight]), gradients)
    alone = label_smoothed_loss(features[REAL], weight, LABELS[REAL])
    assert_close(alone, loss)


@pytest.mark.usefixtures("either_torch")
def test_the_score_of_padding_does_not_matter():
    features, weight = features_and_weight()
    loss = label_smoothed_loss(features, weight, LABELS)
    (gradient,) = torch.autograd.grad(loss, weight)
    assert (gradient[PAD] == 0).all()
    assert (gradient[1:] != 0).all()
    other = weight.detach().clone()
    other[PAD] = 1e3
    assert_close(label_smoothed_loss(features, other, LABELS), loss)


@pytest.mark.usefixtures("either_torch")
def test_only_padding_loses_nothing():
    features, weight = features_and_weight()
    loss = label_smoothed_loss(features, weight, torch.zeros_like(LABELS))
    assert loss.item() == 0
    assert all((g == 0).all() for g in torch.autograd.grad(loss, [features, weight]))


@pytest.mark.skipif(
    not hasattr(F, "linear_cross_entropy"), reason="the fused call is new in torch 2.13"
)
def test_the_fused_call_is_used_where_there_is_one(monkeypatch):
    calls = []
    fused = F.linear_cross_entropy
    monkeypatch.setattr(
        F, "linear_cross_entropy", lambda *a, **k: calls.append(1) or fused(*a, **k)
    )
    label_smoothed_loss(*features_and_weight(), LABELS)
    assert calls == [1]
