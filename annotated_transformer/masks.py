"""Masks (§3.2.3): which keys a query may look at. bool, True = may look."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from annotated_transformer.special import PAD


def padding_mask(ids: Int[Tensor, "batch key"]) -> Bool[Tensor, "batch 1 1 key"]:
    """Every query of a sentence may look at the keys that are not padding.

    Padded queries need no mask: their outputs are finite, and nothing reads them.
    """
    return (ids != PAD)[:, None, None, :]


def causal_mask(
    length: int, device: torch.device | str | None = None
) -> Bool[Tensor, "length length"]:
    """Position i may look at positions 0 to i, never at later ones (§3.2.3)."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()
