"""Claims in words, seeded numbers, a mean with its range."""

from collections.abc import Sequence

import torch
from torch import Tensor


def check(ok: bool | Tensor, what: str) -> None:
    """Print a claim, and whether it holds: `ok` or `FAIL`."""
    print("ok  " if ok else "FAIL", what)


def refuted(claim: bool | Tensor, what: str) -> None:
    """Print a claim that should be false here: what a trap makes of the truth."""
    print("NOT REFUTED:" if claim else "refuted, as expected:", what)


def seeded(seed: int) -> torch.Generator:
    """A source of random numbers that are the same every time."""
    return torch.Generator().manual_seed(seed)


def spread(values: Sequence[float], *, digits: int = 2) -> str:
    """Mean and range over seeds, as in "0.42 (0.40 to 0.45)"."""
    mean, low, high = sum(values) / len(values), min(values), max(values)
    return f"{mean:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
