"""LayerScale: small factors on what each layer adds; not in the paper (chapter 19)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class LayerScale(nn.Module):
    """A residual whose sub-layer counts by a learned factor for each channel.

    The factors start small, so that each layer starts near the identity (Touvron et al.
    2021, arXiv 2103.17239); not in the paper.
    """

    def __init__(self, residual: nn.Module, d_model: int, *, start: float):
        super().__init__()
        self.residual = residual  # PreNorm or PostNorm, as it was
        self.factors = nn.Parameter(torch.full((d_model,), start))

    def forward(self, x: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        """Scale what the sub-layer adds; the skip connection stays as it is."""
        y: Tensor = self.residual(x, lambda x: self.factors * sublayer(x))
        return y


def add_layer_scale(stack: nn.Module, d_model: int, *, start: float) -> None:
    """Put factors into each residual of an encoder's or a decoder's layers."""
    for layer in stack.layers:  # type: ignore[union-attr]
        scaled = [LayerScale(r, d_model, start=start) for r in layer.residuals]  # type: ignore
        layer.residuals = nn.ModuleList(scaled)  # type: ignore[union-attr]
