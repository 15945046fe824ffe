"""Weights in eight bits: a code for each number, and a scale for each row."""

import torch
from jaxtyping import Float, Int8
from torch import Tensor, nn

TOP = 127  # codes go from -127 to 127; -128 would have no opposite

Codes = Int8[Tensor, "out in"]
Scales = Float[Tensor, " out"]


def quantize(weight: Float[Tensor, "out in"]) -> tuple[Codes, Scales]:
    """Codes and scales: the weight is about code times scale, row by row.

    A row is an output channel. Its number farthest from 0 becomes 127 or -127, and 0
    stays 0. Raises ValueError for numbers that are not finite.
    """
    if not weight.isfinite().all():
        raise ValueError("NaN or infinity among the weights: they have no scale")
    scale = weight.abs().amax(1) / TOP
    scale = torch.where(scale > 0, scale, 1.0)  # a row of zeros has no size
    codes = (weight / scale[:, None]).round().clamp(-TOP, TOP)
    return codes.to(torch.int8), scale


def dequantize(codes: Codes, scale: Scales) -> Float[Tensor, "out in"]:
    """The numbers that the codes stand for."""
    return codes * scale[:, None]


@torch.no_grad()
def quantize_model(model: nn.Module) -> int:
    """Round each matrix to what its codes stand for, in place; the bytes to store.

    A matrix that serves twice counts once. Biases and gains keep their floats, and the
    arithmetic stays in floats, too: this is what int8 costs in quality, not its speed.
    """
    n_bytes = 0
    for parameter in model.parameters():
        if parameter.dim() != 2:
            n_bytes += parameter.nbytes
            continue
        codes, scale = quantize(parameter)
        parameter.copy_(dequantize(codes, scale))
        n_bytes += codes.nbytes + scale.nbytes
    return n_bytes
