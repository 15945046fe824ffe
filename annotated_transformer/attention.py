"""Attention (§3.2): the explicit Eq. 1, the fused road to it, and several heads."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


def attention(
    query: Float[Tensor, "*batch query d_k"],
    key: Float[Tensor, "*batch key d_k"],
    value: Float[Tensor, "*batch key d_v"],
    mask: Bool[Tensor, "..."] | None = None,
    *,
    dropout: float = 0.0,
) -> tuple[Float[Tensor, "*batch query d_v"], Float[Tensor, "*batch query key"]]:
    """Average the values, weighted by how well keys fit the query (§3.2.1, Eq. 1).

    Returns the output and the weights before dropout. The mask broadcasts to
    (*batch, query, key); True = may look. A query that may look nowhere gets zeros.
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
    """The output of `attention` in one call that, fused, never stores the weights."""
    if mask is not None and mask.dim() == 1:
        mask = mask[None]  # the fused call wants an axis for queries
    return F.scaled_dot_product_attention(query, key, value, mask, dropout)


class KeyValueCache:
    """Keys and values of earlier decoding steps, in room set aside once for all."""

    def __init__(self, capacity: int):
        self.capacity, self.length = capacity, 0
        self.key: Tensor | None = None
        self.value: Tensor | None = None

    def extend(
        self,
        key: Float[Tensor, "batch heads new d_k"],
        value: Float[Tensor, "batch heads new d_v"],
    ) -> tuple[
        Float[Tensor, "batch heads key d_k"], Float[Tensor, "batch heads key d_v"]
    ]:
        """Append the new keys and values, and return all so far."""
        if self.key is None or self.value is None:
            batch, heads, _, d_k = key.shape
            self.key = key.new_empty(batch, heads, self.capacity, d_k)
            self.value = value.new_empty(batch, heads, self.capacity, value.size(-1))
        new = slice(self.length, self.length + key.size(2))
        self.key[:, :, new], self.value[:, :, new] = key, value
        self.length = new.stop
        return self.key[:, :, : new.stop], self.value[:, :, : new.stop]

    def keep(self, rows: Int[Tensor, " kept"]) -> None:
        """Go on with these sentences of the batch only."""
        if self.key is not None and self.value is not None:
            self.key, self.value = self.key[rows], self.value[rows]


_recorder: ContextVar[dict[nn.Module, Tensor] | None] = ContextVar(
    "recorder", default=None
)


@contextmanager
def record_attention(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Collect every attention map of the forward passes run inside the `with` block.

    Yields a dict from module name ("decoder.layers.0.cross_attention") to the weights
    (batch, heads, query, key) of the last pass, before dropout. Filled when the block
    ends. The maps come from the same pass as the output; the model keeps nothing.
    """
    maps: dict[str, Tensor] = {}
    recorded: dict[nn.Module, Tensor] = {}
    token = _recorder.set(recorded)
    try:
        yield maps
    finally:
        _recorder.reset(token)
    maps.update(
        {name: recorded[m] for name, m in model.named_modules() if m in recorded}
    )


class MultiHeadAttention(nn.Module):
    """Several attentions side by side, each in its own small space (§3.2.2).

    One packed matrix holds W^Q, W^K and W^V of all heads, in this order: self-attention
    is then one product instead of three. No biases, as in the paper's formula.
    """

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
        self.d_k, self.d_v = d_k or d_model // n_heads, d_v or d_model // n_heads
        self.sizes = [n_heads * self.d_k, n_heads * self.d_k, n_heads * self.d_v]
        self.query_key_value = nn.Linear(d_model, sum(self.sizes), bias=False)
        self.output = nn.Linear(n_heads * self.d_v, d_model, bias=False)

    def split_heads(
        self, x: Float[Tensor, "batch length width"]
    ) -> Float[Tensor, "batch heads length size"]:
        """Cut the width into heads, and move the heads before the positions."""
        return x.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)

    def project_query(
        self, query: Float[Tensor, "batch query d_model"]
    ) -> Float[Tensor, "batch heads query d_k"]:
        """Queries alone, for attention over something else than x itself."""
        weight = self.query_key_value.weight[: self.sizes[0]]
        return self.split_heads(F.linear(query, weight))

    def project_memory(
        self, memory: Float[Tensor, "batch key d_model"]
    ) -> tuple[
        Float[Tensor, "batch heads key d_k"], Float[Tensor, "batch heads key d_v"]
    ]:
        """Keys and values, in one product."""
        weight = self.query_key_value.weight[self.sizes[0] :]
        key, value = F.linear(memory, weight).split(self.sizes[1:], -1)
        return self.split_heads(key), self.split_heads(value)

    def attend(
        self,
        query: Float[Tensor, "batch heads query d_k"],
        key: Float[Tensor, "batch heads key d_k"],
        value: Float[Tensor, "batch heads key d_v"],
        mask: Bool[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "batch query d_model"]:
        """Attend in every head, lay the results side by side, and mix them with W^O."""
        dropout = self.dropout if self.training else 0.0
        recorder = _recorder.get()
        if recorder is None:
            heads = fused_attention(query, key, value, mask, dropout=dropout)
        else:
            heads, recorder[self] = attention(query, key, value, mask, dropout=dropout)
        return self.output(heads.transpose(1, 2).flatten(-2))

    def forward(
        self,
        x: Float[Tensor, "batch query d_model"],
        memory: Float[Tensor, "batch key d_model"] | None = None,
        mask: Bool[Tensor, "..."] | None = None,
        cache: KeyValueCache | None = None,
    ) -> Float[Tensor, "batch query d_model"]:
        """Attend from x to memory, or to x itself when no memory is given.

        The mask broadcasts to (batch, heads, query, key); True = may look. A cache
        makes x attend to the keys and values of earlier calls as well.
        """
        if memory is not None:
            return self.attend(
                self.project_query(x), *self.project_memory(memory), mask
            )
        query, key, value = map(
            self.split_heads, self.query_key_value(x).split(self.sizes, -1)
        )
        if cache is not None:
            key, value = cache.extend(key, value)
        return self.attend(query, key, value, mask)
