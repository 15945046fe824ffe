"""Layers of later models than the paper's, put into a model that is built (chapter 19).

The layers receive their sub-layers, so each change is a few lines, and no setting.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from annotated_transformer.layers import Vectors
from annotated_transformer.transformer import Transformer, reset_parameters


class GatedFeedForward(nn.Module):
    """(gelu(x W) * x V) W2: one half says how much of the other passes (GEGLU).

    Three matrices in the place of two: with 2/3 of d_ff, as many parameters (Shazeer
    2020, arXiv 2002.05202).
    """

    def __init__(self, d_model: int, d_ff: int):
        super().__init__()
        self.widen = nn.Linear(d_model, 2 * d_ff, bias=False)
        self.narrow = nn.Linear(d_ff, d_model, bias=False)

    def forward(self, x: Vectors) -> Vectors:
        """The gate and what it lets through come out of one product."""
        gate, value = self.widen(x).chunk(2, -1)
        return self.narrow(F.gelu(gate) * value)


def gated(model: Transformer) -> None:
    """Give each layer a gated feed-forward of about the same size; initialize all."""
    c = model.config
    for layer in [*model.encoder.layers, *model.decoder.layers]:
        layer.feed_forward = GatedFeedForward(c.d_model, round(2 * c.d_ff / 3))
    reset_parameters(model, c.d_model)


def rms_norms(model: Transformer) -> None:
    """Put an RMS norm in the place of each layer norm."""
    for part in list(model.modules()):
        if isinstance(getattr(part, "norm", None), nn.LayerNorm):
            part.norm = nn.RMSNorm(model.config.d_model, eps=1e-5)


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
