"""Attention (§3.2): Eq. 1 written out, its fused version, and several heads."""

import math

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from annotated_transformer.errors import InputError


def attention(
    query: Float[Tensor, "*batch query d_k"],
    key: Float[Tensor, "*batch key d_k"],
    value: Float[Tensor, "*batch key d_v"],
    mask: Bool[Tensor, "..."] | None = None,
    *,
    dropout: float = 0.0,
) -> tuple[Float[Tensor, "*batch query d_v"], Float[Tensor, "*batch query key"]]:
    """Average the values, weighted by how well keys match the query (§3.2.1, Eq. 1).

    Returns the output and the weights before dropout. The mask broadcasts to
    (*batch, query, key); True = may look. A query that may look at no key gets zeros.
    """
    scores = query @ key.mT / math.sqrt(query.size(-1))  # (*batch, query, key)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    weights = scores.softmax(-1)
    if mask is not None:
        weights = weights.masked_fill(~mask, 0.0)  # softmax of only -inf is NaN
    return F.dropout(weights, dropout, training=dropout > 0) @ value, weights


def fused_attention(
    query: Float[Tensor, "*batch query d_k"],
    key: Float[Tensor, "*batch key d_k"],
    value: Float[Tensor, "*batch key d_v"],
    mask: Bool[Tensor, "..."] | None = None,
    *,
    dropout: float = 0.0,
) -> Float[Tensor, "*batch query d_v"]:
    """The output of `attention` (§3.2.1), in a call that need not store the weights."""
    if mask is not None and mask.dim() == 1:
        mask = mask[None]  # the fused call needs a query axis
    return F.scaled_dot_product_attention(query, key, value, mask, dropout)


def head_size(d_model: int, n_heads: int) -> int:
    """The width that a head has by default, d_model / h (§3.2.2).

    Raises InputError if the heads cannot be equally wide.
    """
    if d_model % n_heads:
        raise InputError(
            f"d_model ({d_model}) must be divisible by n_heads ({n_heads}): change one "
            "of them, or give d_k and d_v"
        )
    return d_model // n_heads


class MultiHeadAttention(nn.Module):
    """Several attention heads in parallel, each in its own subspace (§3.2.2).

    One packed matrix holds W^Q, W^K and W^V of all heads, in this order: self-attention
    is then one product instead of three. No biases, as in the paper's formula.
    """

    attend = staticmethod(fused_attention)  # what each head runs

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        d_k: int | None = None,
        d_v: int | None = None,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.n_heads, self.dropout = n_heads, dropout
        self.d_k = d_k or head_size(d_model, n_heads)
        self.d_v = d_v or head_size(d_model, n_heads)
        self.sizes = [n_heads * self.d_k, n_heads * self.d_k, n_heads * self.d_v]
        self.query_key_value = nn.Linear(d_model, sum(self.sizes), bias=False)
        self.output = nn.Linear(n_heads * self.d_v, d_model, bias=False)

    def project(
        self,
        x: Float[Tensor, "batch query d_model"],
        memory: Float[Tensor, "batch key d_model"] | None = None,
    ) -> list[Float[Tensor, "batch heads length size"]]:
        """Queries from x; keys and values from the memory, or from x; split by head."""
        if memory is None:
            parts = self.query_key_value(x).split(self.sizes, -1)
        else:
            weight, (n_query, *others) = self.query_key_value.weight, self.sizes
            key_value = F.linear(memory, weight[n_query:]).split(others, -1)
            parts = F.linear(x, weight[:n_query]), *key_value
        return [self.split_heads(part) for part in parts]

    def split_heads(
        self, x: Float[Tensor, "batch length width"]
    ) -> Float[Tensor, "batch heads length size"]:
        """Split the width into heads, and move the head axis before the positions."""
        return x.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)

    def join_heads(
        self, heads: Float[Tensor, "batch heads length d_v"]
    ) -> Float[Tensor, "batch length d_model"]:
        """Concatenate the heads' outputs, and mix them with W^O."""
        return self.output(heads.transpose(1, 2).flatten(-2))

    def forward(
        self,
        x: Float[Tensor, "batch query d_model"],
        memory: Float[Tensor, "batch key d_model"] | None = None,
        mask: Bool[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "batch query d_model"]:
        """Attend from x to memory, or to x itself when no memory is given.

        The mask broadcasts to (batch, heads, query, key); True = may look.
        """
        query, key, value = self.project(x, memory)
        dropout = self.dropout if self.training else 0.0
        return self.join_heads(self.attend(query, key, value, mask, dropout=dropout))
