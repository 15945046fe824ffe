"""Checks of chapter 10, Optimizer and schedule: one for each exercise."""

import math
from typing import Any

import torch
from torch import nn

from annotated_transformer.checks.common import Answer, exercise, seeded

__all__ = ["check_adam", "check_loop", "check_warmup"]


@exercise
def check_warmup(function: Answer) -> str:
    """`my_warmup(peak, d_model)`: the warmup that gives Eq. 3 this peak."""
    peak, d_model = 0.005, 100
    answer, right = function(peak, d_model), 1 / (peak**2 * d_model)
    for wrong, mistake in (
        (1 / peak**2, "where is the width? The peak depends on d_model, too"),
        (1 / (peak * d_model), "is the peak squared? Undo the root first"),
        (d_model / peak**2, "divide by d_model: a wider model has a lower peak anyway"),
        (peak**2 * d_model, "upside down: a lower peak needs a longer warmup"),
        ((peak * d_model) ** -0.5, "that is Eq. 3's peak with warmup and peak swapped"),
        (1 / (peak * d_model) ** 2, "only the peak is squared, not d_model"),
        (
            1 / (peak**2 * d_model**0.5),
            "d_model stands under the root already: no root",
        ),
    ):
        if math.isclose(answer, wrong, rel_tol=1e-3):
            return mistake
    if not math.isclose(answer, right, rel_tol=1e-3):
        return (
            f"peak 0.005 and width 100 need a warmup of {right:.0f}, not {answer:.4g}"
        )
    if not math.isclose(function(0.01, 64), 156.25, rel_tol=0.01):
        return "right for width 100 only: did you write a number instead of d_model?"
    return "correct"


@exercise
def check_adam(function: Answer) -> str:
    """`my_adam(weight, gradient, mean, square, step, rate)`: one step."""
    g = seeded(0)
    gradients = torch.randn(4, 6, generator=g).double()
    gradients[:, 4:] *= 1e-9  # as small as eps

    def run(step_of: Any) -> Any:
        weight = torch.ones(6, dtype=torch.float64)
        mean, square, all_of_it = torch.zeros(6).double(), torch.zeros(6).double(), []
        for step, gradient in enumerate(gradients, start=1):
            answer = step_of(weight, gradient.clone(), mean, square, step, 0.1)
            if answer is None or len(answer) != 3:
                return None
            weight, mean, square = (tensor.clone() for tensor in answer)
            all_of_it.append(torch.stack([weight, mean, square]))
        return torch.stack(all_of_it)

    def version(
        b1: Any = 0.9,
        b2: Any = 0.98,
        eps: Any = 1e-09,
        sign: Any = -1,
        late: Any = False,
        fix: Any = (1, 1),
        how: Any = "out",
    ) -> Any:
        def step_of(
            weight: Any, gradient: Any, mean: Any, square: Any, step: Any, rate: Any
        ) -> Any:
            old = mean, square
            mean = b1 * mean + (1 - b1) * gradient
            square = b2 * square + (1 - b2) * gradient**2
            m, s = old if late else (mean, square)
            m = m / (1 - b1**step) if fix[0] else m
            s = s / (1 - b2**step) if fix[1] else s
            bottom = {
                "out": s.sqrt() + eps,
                "no mean": s.sqrt() + eps,
                "in": (s + eps).sqrt(),
                "in2": (s + eps**2).sqrt(),
                "no root": s + eps,
                "early": s.sqrt() + eps / math.sqrt(1 - b2**step),
            }[how]
            top = gradient if how == "no mean" else m
            return weight + sign * rate * top / bottom, mean, square

        return run(step_of)

    answer = run(function.let)
    if answer is None:
        return "not done yet: return the new weight, mean and square"
    for wrong, mistake in (
        (version(fix=(0, 0)), "no bias correction: the averages began at 0"),
        (version(fix=(1, 0)), "only the mean is corrected, not the square"),
        (version(fix=(0, 1)), "only the square is corrected, not the mean"),
        (version(how="no root"), "the square is not yet a size: take its root"),
        (version(how="in"), "is your eps inside the root?"),
        (version(how="in2"), "is your eps inside the root?"),
        (version(how="early"), "add eps after the square is corrected, not before"),
        (version(how="no mean"), "the step follows the mean, not the last gradient"),
        (version(sign=-10), "where is the rate?"),  # rate is 0.1 here
        (version(eps=0.0), "where is eps? An unseen word would divide 0 by 0"),
        (version(eps=1e-8), "eps is 1e-9 in §5.3; 1e-8 is PyTorch's default"),
        (version(b1=0.98, b2=0.9), "betas swapped: the mean has 0.9, the square 0.98"),
        (version(b2=0.999), "beta2 is 0.98 in §5.3; 0.999 is PyTorch's default"),
        (version(sign=1), "uphill: subtract the step"),
        (version(late=True), "the step uses the old averages: update them first"),
    ):
        if torch.allclose(answer[:, 0], wrong[:, 0], rtol=1e-9, atol=1e-12):
            return mistake
    right = version()
    i = int((answer[0, 0] - right[0, 0]).abs().argmax())
    if not torch.allclose(answer[0, 0], right[0, 0], rtol=1e-9, atol=1e-12):
        wanted, found = right[0, 0, i], answer[0, 0, i]
        return f"after step 1, weight {i} should be {wanted:.9g}, not {found:.9g}"
    if not torch.allclose(answer[0, 1:], right[0, 1:], rtol=1e-9, atol=1e-24):
        return "the first weight is right: now return mean and square uncorrected"
    if not torch.allclose(answer, right, rtol=1e-9, atol=1e-24):
        return "step 1 is right, later ones are not: where does step enter?"
    return "correct"


@exercise
def check_loop(function: Answer) -> str:
    """`my_loop(optimizer, rate, epochs, backward, accumulate)`: its clock."""

    class Recorder(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            used.append([round(group["lr"], 6) for group in self.param_groups])
            grads.append(self.param_groups[0]["params"][0].grad)

    used: list[list[float]] = []
    grads: list[Any] = []
    weights = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = Recorder([{"params": [w]} for w in weights], lr=0.0)

    def backward(batch: Any) -> Any:
        (sum(weights) * batch).sum().backward()

    function.let(optimizer, lambda step: float(step), [[1.0] * 6] * 2, backward, 3)
    if not used:
        return "not done yet: no update was made"
    if len(used) != 4:
        return f"12 batches, three to an update, are 4 updates, not {len(used)}"
    if any(g is None or g.item() != 3 for g in grads):
        return (
            "a gradient is not the sum of its 3 batches: zero_grad after the step only"
        )
    first, second = ([pair[i] for pair in used] for i in range(2))
    if set(first + second) == {0.0}:
        return (
            "every rate is 0: set it. (LambdaLR multiplies the optimizer's lr, here 0)"
        )
    if first != second and (0.0 in second or len(set(second)) == 1):
        return "the second group of parameters never gets a rate"
    if first == [1.0, 2.0, 1.0, 2.0]:
        return "the clock begins again with each epoch: count over all of them"
    if first == [0.0, 1.0, 2.0, 3.0]:
        return "one behind: is the rate set before the step, and counted from 1?"
    if first == [2.0, 3.0, 4.0, 5.0]:
        return "one ahead: the first update has the rate of step 1"
    if first[1] - first[0] == 3:
        return "the clock counts batches: count updates"
    if first[0] == 0:
        return "the first update has rate 0: set it before the step, and count from 1"
    if first != [1.0, 2.0, 3.0, 4.0]:
        return f"updates 1 to 4 should have rates of steps 1 to 4, not {first}"
    return "correct"
