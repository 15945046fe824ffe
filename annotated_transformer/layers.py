"""The other layers: feed-forward, embeddings, positions, norms, residuals (§3)."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from annotated_transformer.errors import InputError

Vectors = Float[Tensor, "batch length d_model"]  # one for each position


class FeedForward(nn.Module):
    """Widen, apply max(0, x), narrow again, for each position alone (§3.3, Eq. 2)."""

    def __init__(self, d_model: int, d_ff: int, *, activation: str = "relu"):
        super().__init__()
        self.widen = nn.Linear(d_model, d_ff)
        self.narrow = nn.Linear(d_ff, d_model)
        self.activation: Callable[[Tensor], Tensor] = getattr(F, activation)

    def forward(self, x: Vectors) -> Vectors:
        """Two linear maps with an activation between, the same at every position."""
        return self.narrow(self.activation(self.widen(x)))


class Embeddings(nn.Module):
    """Look up each token's vector, scaled by sqrt(d_model) (§3.4).

    Weight tying: the `Transformer` uses the same matrix as its output layer.
    """

    def __init__(self, vocab_size: int, d_model: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocab_size, d_model))
        self.scale = math.sqrt(d_model)

    def forward(self, ids: Int[Tensor, "batch length"]) -> Vectors:
        """The matrix is small because it is also the output layer: scale it up here."""
        return F.embedding(ids, self.weight) * self.scale


def sinusoids(length: int, d_model: int) -> Float[Tensor, "length d_model"]:
    """Sines in the even columns, cosines in the odd ones, ever longer waves (§3.5)."""
    position = torch.arange(length, dtype=torch.float64)[:, None]
    column = torch.arange(0, d_model, 2, dtype=torch.float64)
    angle = position / 10_000 ** (column / d_model)  # (length, d_model / 2)
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1).float()


class SinusoidalPositions(nn.Module):
    """Add a fixed wave pattern that tells positions apart (§3.5), at any length."""

    def __init__(self, max_length: int, d_model: int):
        super().__init__()
        self.register_buffer("table", sinusoids(max_length, d_model), persistent=False)
        self.table: Tensor

    def forward(self, x: Vectors, start: int = 0) -> Vectors:
        """Add the rows from `start` on; the table grows when x is longer than it."""
        end = start + x.size(1)
        if end > len(self.table):
            with torch.inference_mode(False):  # so that training can use it, too
                self.table = sinusoids(2 * end, x.size(-1)).to(self.table)
        return x + self.table[start:end]


class LearnedPositions(nn.Module):
    """Add a learned vector at each position, up to a fixed length (Table 3, row E)."""

    def __init__(self, max_length: int, d_model: int):
        super().__init__()
        self.table = nn.Parameter(torch.empty(max_length, d_model))

    def forward(self, x: Vectors, start: int = 0) -> Vectors:
        """Add the rows from `start` on. Raises InputError past the end of the table."""
        end = start + x.size(1)
        if end > len(self.table):
            raise InputError(
                f"{end} positions requested, but only {len(self.table)} learned: "
                "use shorter input, or a model with sinusoidal positions"
            )
        return x + self.table[start:end]


def layer_norm(
    x: Float[Tensor, "*batch d_model"],
    gain: Float[Tensor, " d_model"],
    bias: Float[Tensor, " d_model"],
    *,
    eps: float = 1e-5,
) -> Float[Tensor, "*batch d_model"]:
    """Give each position mean 0 and variance 1, then a learned scale and shift (§3.1).

    The variance divides by d_model (not d_model - 1), and eps is inside the square
    root, as in `nn.LayerNorm`, the fused version that the model runs (Ba et al. 2016).
    """
    mean = x.mean(-1, keepdim=True)
    variance = x.var(-1, correction=0, keepdim=True)
    return gain * (x - mean) / torch.sqrt(variance + eps) + bias


class PostNorm(nn.Module):
    """LayerNorm(x + Sublayer(x)), as printed (§3.1); dropout as in §5.4."""

    def __init__(self, d_model: int, dropout: float):
        super().__init__()
        self.norm = nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Vectors, sublayer: Callable[[Tensor], Tensor]) -> Vectors:
        """Add first, then normalize."""
        return self.norm(x + self.dropout(sublayer(x)))


class PreNorm(nn.Module):
    """x + Sublayer(LayerNorm(x)): departs from §3.1, and trains without a long warmup.

    The sum itself is never normalized, so a stack of these ends in one more LayerNorm.
    """

    def __init__(self, d_model: int, dropout: float):
        super().__init__()
        self.norm = nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Vectors, sublayer: Callable[[Tensor], Tensor]) -> Vectors:
        """Normalize first; nothing touches the skip connection."""
        return x + self.dropout(sublayer(self.norm(x)))
