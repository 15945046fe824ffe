"""Attention outside a model: real heads and random ones (chapters 02 to 04)."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from annotated_transformer.attention import attention, fused_attention
from annotated_transformer.devices import other_attention
from annotated_transformer.lessons.claims import seeded
from annotated_transformer.transformer import Transformer


def influence(
    function: Callable[[Tensor], Tensor], x: Float[Tensor, "length width"]
) -> Float[Tensor, "output input"]:
    """How strongly each position of the output depends on each position of the input.

    The largest partial derivative between two positions; exactly 0 means that nothing
    flows from one to the other.
    """
    jacobian = torch.autograd.functional.jacobian(function, x)
    return jacobian.abs().amax((1, 3))


@torch.no_grad()
def first_heads(
    model: Transformer, ids: Sequence[int]
) -> list[Float[Tensor, "heads length size"]]:
    """Queries, keys and values of the encoder's first layer for one source sentence.

    A matrix for each head, as this model makes them: the inputs of Eq. 1 (§3.2.1).
    """
    seen: list[tuple[Tensor, ...]] = []

    def attend(*arguments: Tensor, dropout: float) -> Tensor:
        seen.append(arguments[:3])
        return fused_attention(*arguments, dropout=dropout)

    with other_attention(model, lambda _: attend):
        model.encode(torch.tensor([ids]))
    return [tensor[0] for tensor in seen[0]]


def random_layers(
    n_layers: int, *, width: int = 8, seed: int = 0
) -> Float[Tensor, "n_layers 3 width width"]:
    """Matrices of queries, keys and values, untrained, for `attention_stack`."""
    size = n_layers, 3, width, width
    return torch.randn(size, generator=seeded(seed)) / math.sqrt(width)


def attention_stack(
    x: Float[Tensor, "*batch length width"],
    mask: Tensor | None,
    layers: Float[Tensor, "n_layers 3 width width"],
    attend: Callable[..., tuple[Tensor, Any]] = attention,
) -> Float[Tensor, "*batch length width"]:
    """Masked self-attention, layer upon layer; each adds what it finds to its input."""
    for query, key, value in layers:
        x = x + attend(x @ query, x @ key, x @ value, mask)[0]
    return x
