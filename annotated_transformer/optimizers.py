"""Other optimizers than the paper's Adam (§5.3): LAMB, Muon; averages (chapter 19)."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from annotated_transformer.errors import InputError


def trust_ratio(weight: Tensor, update: Tensor) -> Tensor:
    """The length of the weights in lengths of their update; 1 where either is 0."""
    weight_norm, update_norm = weight.norm(), update.norm()
    known = (weight_norm > 0) & (update_norm > 0)
    return torch.where(known, weight_norm / update_norm, 1.0)


class Lamb(torch.optim.Optimizer):
    """Adam whose step on a matrix is as long as the matrix, times the rate.

    The trust ratio is that of each tensor (You et al. 2020, arXiv 1904.00962, Algorithm
    2, with the identity for phi). Biases and gains, of one axis, have neither ratio nor
    decay.
    """

    def __init__(
        self,
        parameters: Any,
        lr: float = 0.01,
        *,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-9,
        weight_decay: float = 0.0,
    ):
        options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(parameters, options)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        for group, p, state in _with_gradients(self):
            if not state:
                state |= {"step": 0, "m": torch.zeros_like(p), "v": torch.zeros_like(p)}
            (beta1, beta2), state["step"] = group["betas"], state["step"] + 1
            m = state["m"].lerp_(p.grad, 1 - beta1)
            v = state["v"].lerp_(p.grad.square(), 1 - beta2)
            update = m / (1 - beta1 ** state["step"])
            update /= (v / (1 - beta2 ** state["step"])).sqrt() + group["eps"]
            ratio = torch.tensor(1.0)
            if p.dim() > 1:
                update += group["weight_decay"] * p
                ratio = trust_ratio(p, update)
            p -= group["lr"] * ratio * update


def _with_gradients(
    optimizer: torch.optim.Optimizer,
) -> Iterator[tuple[dict[str, Any], Any, dict[str, Any]]]:
    """Each parameter that has a gradient, with its group and what is kept for it."""
    for group in optimizer.param_groups:
        for p in group["params"]:
            if p.grad is not None:
                yield group, p, optimizer.state[p]


def orthogonalized(
    matrix: Float[Tensor, "*matrices rows columns"],
    *,
    steps: int = 5,
    numbers: tuple[float, float, float] = (3.4445, -4.7750, 2.0315),
) -> Float[Tensor, "*matrices rows columns"]:
    """About U V^T, where the matrix is U S V^T: all its singular values become about 1.

    Newton-Schulz: each step puts every singular value s through the same polynomial, as
    + bs³ + cs⁵, by products of matrices alone. Jordan et al. 2024 chose these numbers
    to lift small values fast; most end within 0.3 of 1. With 1.5, -0.5 and 0 it is
    the classical iteration, slower, whose values end at 1.
    """
    a, b, c = numbers
    tall = matrix.size(-2) > matrix.size(-1)
    x = matrix.mT if tall else matrix  # the smaller product is the cheaper one
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)  # no value above 1
    for _ in range(steps):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum, made orthogonal: every direction of a matrix moves equally far.

    For hidden matrices alone; embeddings and vectors are left to Adam (Jordan et al.
    2024). A group's `pieces` says how many matrices are stacked in each of its
    parameters. The step is as large as Adam's usual one, so that both can have the same
    rate (Liu et al. 2025, arXiv 2502.16982).
    """

    def __init__(self, parameters: Any, lr: float = 0.01, *, momentum: float = 0.95):
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "pieces": 1})
        shapes = [p.shape for g in self.param_groups for p in g["params"]]
        if wrong := [tuple(shape) for shape in shapes if len(shape) != 2]:
            raise InputError(f"Muon moves matrices, not a tensor of shape {wrong[0]}")

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of every matrix that has a gradient."""
        for group, p, state in _with_gradients(self):
            if not state:
                state["m"] = torch.zeros_like(p)
            m = state["m"].lerp_(p.grad, 1 - group["momentum"])
            ahead = p.grad.lerp(m, group["momentum"])  # Nesterov's momentum
            update = orthogonalized(ahead.unflatten(0, (group["pieces"], -1)))
            size = 0.2 * max(update.shape[-2:]) ** 0.5  # root mean square 0.2
            p -= group["lr"] * size * update.flatten(0, 1)


class Together:
    """Several optimizers as one, each with parameters of its own."""

    def __init__(self, *optimizers: torch.optim.Optimizer):
        self.optimizers = optimizers

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all: a rate that is set here is theirs."""
        return [group for each in self.optimizers for group in each.param_groups]

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for each in self.optimizers:
            each.zero_grad()

    def step(self) -> None:
        """A step of each."""
        for each in self.optimizers:
            each.step()


class MovingAverage:
    """An exponential average of a model's weights: recent steps count for more.

    After each step, average = (1 - 1/memory) * average + 1/memory * weights.
    """

    def __init__(self, model: nn.Module, memory: int):
        self.weights = deepcopy(model.state_dict())
        self.memory = memory

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move a little towards the model's weights now."""
        for name, now in model.state_dict().items():
            self.weights[name].lerp_(now, 1 / self.memory)
