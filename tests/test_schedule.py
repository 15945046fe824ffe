"""Learning rates against Eq. 3 on paper and torch's schedulers; Adam against ours."""

import math

import pytest
import torch
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    SequentialLR,
)
from torch.testing import assert_close

from annotated_transformer.schedule import cosine, inverse_square_root
from annotated_transformer.training import adam


def rates(optimizer: SGD, scheduler: LRScheduler, steps: int) -> list[float]:
    """What torch's scheduler sets at each step."""
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


def sgd(rate: float) -> SGD:
    return SGD([nn.Parameter(torch.zeros(1))], lr=rate)


# Eq. 3


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (1, 1 / 640_000),
        (800, 1 / 800),
        (1_600, 1 / 400),  # the peak
        (6_400, 1 / 800),
        (25_600, 1 / 1_600),
    ],
)
def test_rates_worked_out_on_paper(step, expected):
    # d_model 100 gives the factor 1/10. Rising: step / 1600**1.5 = step / 64,000.
    # Falling: 1 / sqrt(step), so 1/40 at the peak, and half of it four times later.
    rate = inverse_square_root(step, d_model=100, warmup=1_600)
    assert rate == pytest.approx(expected)


def test_the_base_models_peak_is_at_its_warmups_last_step():
    def rate(step):
        return inverse_square_root(step, d_model=512)

    assert rate(4_000) == pytest.approx(1 / math.sqrt(512 * 4_000))  # about 0.0007
    assert rate(3_999) < rate(4_000) > rate(4_001)
    assert max(range(1, 20_000), key=rate) == 4_000


def test_step_zero_is_harmless():
    rate = inverse_square_root(0, d_model=5, warmup=3)
    assert rate == inverse_square_root(1, d_model=5, warmup=3) > 0


def test_eq_3_run_by_torch():
    # torch counts from 0, the paper from 1.
    optimizer = sgd(512**-0.5)
    scheduler = LambdaLR(optimizer, lambda i: min((i + 1) ** -0.5, (i + 1) * 7**-1.5))
    ours = [inverse_square_root(s, d_model=512, warmup=7) for s in range(1, 31)]
    assert ours == pytest.approx(rates(optimizer, scheduler, 30))


# Cosine


def test_cosine_run_by_torch():
    peak, warmup, total = 0.3, 5, 23
    optimizer = sgd(peak)
    rise = LinearLR(optimizer, 1 / warmup, total_iters=warmup - 1)
    fall = CosineAnnealingLR(optimizer, T_max=total - warmup)
    both = SequentialLR(optimizer, [rise, fall], milestones=[warmup - 1])
    ours = [
        cosine(s, peak=peak, warmup=warmup, total=total) for s in range(1, total + 1)
    ]
    assert ours == pytest.approx(rates(optimizer, both, total), abs=1e-12)


def test_cosine_passes_through_its_marks():
    marks = {0: 0.0, 1: 0.2, 5: 1.0, 10: 0.5, 15: 0.0, 99: 0.0}
    for step, expected in marks.items():
        rate = cosine(step, peak=1.0, warmup=5, total=15)
        assert rate == pytest.approx(expected, abs=1e-12)


def test_cosine_of_a_run_as_short_as_its_warmup():
    assert cosine(7, peak=0.3, warmup=7, total=7) == pytest.approx(0.3)


# Adam (§5.3)


def test_adam_by_hand_equals_torchs_with_the_papers_numbers():
    torch.manual_seed(0)
    model = nn.Linear(3, 5).double()
    optimizer = adam(model)
    ours = [p.detach().clone() for p in model.parameters()]
    mean = [torch.zeros_like(p) for p in ours]
    square = [torch.zeros_like(p) for p in ours]
    for step in range(1, 21):
        rate = inverse_square_root(step, d_model=7, warmup=5)
        optimizer.param_groups[0]["lr"] = rate
        for i, parameter in enumerate(model.parameters()):
            g = torch.randn_like(parameter) * 10 ** -(step % 10)  # down to eps itself
            parameter.grad = g
            mean[i] = 0.9 * mean[i] + 0.1 * g
            square[i] = 0.98 * square[i] + 0.02 * g**2
            unbiased_mean = mean[i] / (1 - 0.9**step)
            unbiased_square = square[i] / (1 - 0.98**step)
            ours[i] -= rate * unbiased_mean / (unbiased_square.sqrt() + 1e-9)
        optimizer.step()
        assert_close(list(model.parameters()), ours, rtol=1e-9, atol=1e-12)
