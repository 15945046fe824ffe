"""Small stand-ins for a batch, a model and an optimizer, that note their use."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from annotated_transformer.checks.common import (
    seeded,
)


@dataclass
class Piece:
    """A piece of a batch for the toy model: numbers in, numbers wanted."""

    x: Tensor
    y: Tensor

    @property
    def n_tokens(self) -> int:
        """How many labels it has."""
        return len(self.y)


class ToyModel(nn.Module):
    """A linear model that answers like the course's Objective: a summed loss."""

    def __init__(self, seed: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, generator=seeded(seed)))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, piece: Piece) -> Tensor:
        """Summed over the labels."""
        return ((piece.x @ self.weight + self.bias - piece.y) ** 2).sum()


class Recorder(torch.optim.SGD):
    """Gradient descent in two groups, that notes each step's rate and gradient."""

    def __init__(self, model: ToyModel):
        groups = [{"params": [model.weight]}, {"params": [model.bias]}]
        super().__init__(groups, lr=0.0)
        self.steps: list[tuple[list[float], Tensor]] = []

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Note what this update uses, and make it."""
        rates = [float(group["lr"]) for group in self.param_groups]
        grads = [p.grad for g in self.param_groups for p in g["params"]]
        none = [torch.zeros(4), torch.zeros(1)]
        parts = [
            n if g is None else g.clone() for g, n in zip(grads, none, strict=True)
        ]
        self.steps.append((rates, torch.cat(parts)))
        super().step()


class Notes(list[bool]):
    """What a model notes of its calls; a copy of the model writes into the same."""

    def __deepcopy__(self, memo: dict) -> "Notes":
        return self


class ToyNetwork(nn.Module):
    """A model with dropout and a summed loss, that notes how it was called."""

    def __init__(self, seed: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, generator=seeded(seed)))
        self.dropout = nn.Dropout(0.5)
        self.modes, self.graphs = Notes(), Notes()

    def forward(self, piece: Piece) -> Tensor:
        """Summed over the labels."""
        loss = ((self.dropout(piece.x) @ self.weight - piece.y) ** 2).sum()
        self.modes.append(self.training or self.dropout.training)
        self.graphs.append(loss.requires_grad)
        return loss
