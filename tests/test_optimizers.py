"""LAMB and Muon: against their papers' formulas, and PyTorch's."""

import math

import pytest
import torch
from torch import nn

from annotated_transformer.errors import InputError
from annotated_transformer.optimizers import (
    Lamb,
    Muon,
    Together,
    orthogonalized,
    trust_ratio,
)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def parameters(*shapes, seed=0):
    """Parameters with gradients."""
    g = seeded(seed)
    made = [nn.Parameter(torch.randn(shape, generator=g)) for shape in shapes]
    for p in made:
        p.grad = torch.randn(p.shape, generator=g)
    return made


def test_two_steps_of_lamb_are_those_worked_out_by_hand():
    # Weights (3, 4) and (0, 2), lengths 5 and 2. After bias correction, Adam's first
    # step is the gradient's sign: lengths sqrt 2 and 1. Without decay the new weights
    # are w - rate * |w| * sign / |sign|.
    first = nn.Parameter(torch.tensor([[3.0, 4.0]]))
    second = nn.Parameter(torch.tensor([[0.0], [2.0]]))
    lamb = Lamb([first, second], 0.1, betas=(0.5, 0.5), eps=0.0)
    first.grad, second.grad = torch.tensor([[2.0, -7.0]]), torch.tensor([[1.0], [1.0]])
    lamb.step()
    long = 0.5 / math.sqrt(2)
    expected = torch.tensor([[3 - long, 4 + long]])
    torch.testing.assert_close(first.data, expected)
    short = 0.2 / math.sqrt(2)
    torch.testing.assert_close(second.data, torch.tensor([[-short], [2 - short]]))
    # Second step, gradients (2, 7): m = (2, 0) corrected from (1.5, 1.75), v = squares.
    first.grad, second.grad = torch.tensor([[2.0, 7.0]]), None
    lamb.step()
    update = torch.tensor([[1.0, (0.25 * -7 + 0.5 * 7) / 0.75 / 7]])
    ratio = expected.norm() / update.norm()
    torch.testing.assert_close(first.data, expected - 0.1 * ratio * update)


def test_decay_is_part_of_the_update_whose_length_the_ratio_takes():
    weight = torch.tensor([[3.0, 4.0]])
    p = nn.Parameter(weight.clone())
    p.grad = torch.tensor([[1.0, 1.0]])
    Lamb([p], 0.1, weight_decay=0.5, eps=0.0).step()
    update = 1 + 0.5 * weight
    expected = weight - 0.1 * 5 / update.norm() * update
    torch.testing.assert_close(p.data, expected)


def test_a_step_of_lamb_on_a_matrix_is_as_long_as_the_matrix_times_the_rate():
    (p,) = parameters((3, 5))
    before = p.detach().clone()
    Lamb([p], 0.01, weight_decay=0.1).step()
    torch.testing.assert_close((p - before).norm(), 0.01 * before.norm())
    assert trust_ratio(torch.zeros(2, 3), torch.ones(2, 3)) == 1
    assert trust_ratio(torch.ones(2, 3), torch.zeros(2, 3)) == 1


def test_where_the_ratio_is_left_out_lamb_is_adam():
    ours, theirs = parameters((7,)), parameters((7,))
    lamb = Lamb(ours, 0.02, betas=(0.9, 0.98), eps=1e-9)
    adam = torch.optim.Adam(theirs, 0.02, betas=(0.9, 0.98), eps=1e-9)
    for _ in range(3):
        lamb.step()
        adam.step()
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("shape", [(5, 5), (3, 7), (7, 3), (2, 3, 5)])
def test_an_orthogonalized_matrix_keeps_its_directions_and_evens_out_their_sizes(shape):
    matrix = torch.randn(shape, generator=seeded(1), dtype=torch.float64)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    answer = orthogonalized(matrix, steps=8)
    inside = u.mT @ answer @ v.mT  # diagonal, if the directions are the same
    diagonal = torch.diagonal(inside, dim1=-2, dim2=-1)
    torch.testing.assert_close(inside, torch.diag_embed(diagonal), atol=1e-9, rtol=0)
    assert diagonal.min() > 0.65 and diagonal.max() < 1.25
    cubic = orthogonalized(matrix, steps=30, numbers=(1.5, -0.5, 0.0))
    torch.testing.assert_close(cubic, u @ v)


def test_a_step_of_muon_has_root_mean_square_of_a_fifth_of_the_rate():
    p, rate = nn.Parameter(torch.zeros(16, 16)), 0.5
    p.grad = torch.randn(16, 16, generator=seeded(2))
    Muon([p], rate).step()
    assert 0.7 * 0.2 * rate < p.square().mean().sqrt() < 1.2 * 0.2 * rate


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="PyTorch before 2.9")
def test_muon_is_pytorchs():
    ours, theirs = parameters((6, 4), (4, 6)), parameters((6, 4), (4, 6))
    muon = Muon(ours, 0.02)
    options = {"weight_decay": 0.0, "adjust_lr_fn": "match_rms_adamw"}
    reference = torch.optim.Muon(theirs, 0.02, momentum=0.95, nesterov=True, **options)
    for step in range(3):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn(p.shape, generator=seeded(step))
            q.grad = p.grad.clone()
        muon.step()
        reference.step()
    for p, q in zip(ours, theirs, strict=True):  # theirs multiplies in bfloat16
        torch.testing.assert_close(p, q, atol=1e-3, rtol=0)


def test_stacked_matrices_move_as_if_each_were_alone():
    (stacked,) = parameters((6, 3))
    blocks = [nn.Parameter(block.clone()) for block in stacked.detach().split(2)]
    for block, gradient in zip(blocks, stacked.grad.split(2), strict=True):
        block.grad = gradient.clone()
    Muon([{"params": [stacked], "pieces": 3}], 0.1).step()
    Muon(blocks, 0.1).step()
    torch.testing.assert_close(stacked.data, torch.cat([b.data for b in blocks]))


def test_muon_names_a_tensor_that_is_no_matrix():
    with pytest.raises(InputError, match=r"a tensor of shape \(3,\)"):
        Muon(parameters((2, 5), (3,)))


def test_a_rate_set_for_several_optimizers_is_that_of_each():
    one, two = parameters((2, 3), (5,))
    both = Together(Muon([one]), torch.optim.SGD([two]))
    for group in both.param_groups:
        group["lr"] = 0.0
    before = one.detach().clone(), two.detach().clone()
    both.step()
    torch.testing.assert_close((one.data, two.data), before)
    both.zero_grad()
    assert one.grad is None and two.grad is None
