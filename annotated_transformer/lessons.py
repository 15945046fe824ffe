"""What the notebooks share: claims in words, seeded numbers, small models to watch."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from annotated_transformer.config import TransformerConfig
from annotated_transformer.transformer import Transformer


def check(ok: bool | Tensor, what: str) -> None:
    """Print a claim, and whether it holds: `ok` or `FAIL`."""
    print("ok  " if ok else "FAIL", what)


def refuted(claim: bool | Tensor, what: str) -> None:
    """Print a claim that should be false here: what a trap makes of the truth."""
    print("NOT REFUTED:" if claim else "refuted, as expected:", what)


def seeded(seed: int) -> torch.Generator:
    """A source of random numbers that are the same every time."""
    return torch.Generator().manual_seed(seed)


def influence(
    function: Callable[[Tensor], Tensor], x: Float[Tensor, "length width"]
) -> Float[Tensor, "output input"]:
    """How strongly each position of the output depends on each position of the input.

    The largest partial derivative between two positions; exactly 0 means that nothing
    flows from one to the other.
    """
    jacobian = torch.autograd.functional.jacobian(function, x)
    return jacobian.abs().amax((1, 3))


class Sorter(nn.Module):
    """An encoder that learns to sort digits: embeddings, positions, stack, logits."""

    def __init__(self, config: TransformerConfig, **changes: str | int):
        super().__init__()
        model = Transformer(replace(config, **changes))  # type: ignore[arg-type]
        self.embeddings, self.positions = model.src_embeddings, model.positions
        self.encoder = model.encoder

    def forward(
        self, digits: Int[Tensor, "batch length"]
    ) -> Float[Tensor, "batch length vocab"]:
        """Logits of the digit at each position of the sorted row."""
        x = self.encoder(self.positions(self.embeddings(digits)), None)
        return F.linear(x, self.embeddings.weight)


def spread(values: Sequence[float], *, digits: int = 2) -> str:
    """Mean and range over seeds, as in "0.42 (0.40 to 0.45)"."""
    mean, low, high = sum(values) / len(values), min(values), max(values)
    return f"{mean:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
