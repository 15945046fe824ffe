"""The cache of decoding: keys and values are computed once, and kept.

The decoder's layers take attentions of any kind; these wrap one that is trained.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from annotated_transformer.attention import MultiHeadAttention


class CachedSelfAttention(nn.Module):
    """Self-attention that is given new positions alone, and remembers all before them.

    Memory for the keys and values of all steps is reserved once.
    """

    def __init__(self, attention: MultiHeadAttention, capacity: int):
        super().__init__()
        self.attention, self.capacity, self.length = attention, capacity, 0
        self.key: Tensor | None = None  # (batch, heads, capacity, d_k)
        self.value: Tensor | None = None

    def forward(
        self,
        x: Float[Tensor, "batch new d_model"],
        memory: None = None,
        mask: Bool[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "batch new d_model"]:
        """Attend from the new positions to all so far, the new ones included."""
        query, key, value = self.attention.project(x)
        key, value = self.extend(key, value)
        heads = self.attention.attend(query, key, value, mask, dropout=0.0)
        return self.attention.join_heads(heads)

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


class CachedCrossAttention(nn.Module):
    """Attention to one memory, whose keys and values are computed once."""

    def __init__(
        self, attention: MultiHeadAttention, memory: Float[Tensor, "batch src d_model"]
    ):
        super().__init__()
        self.attention = attention
        _, key, value = attention.project(memory[:, :0], memory)  # no queries yet
        # Laid out as the products of each step will read them.
        self.key, self.value = key.mT.contiguous().mT, value.contiguous()

    def forward(
        self,
        x: Float[Tensor, "batch new d_model"],
        memory: Float[Tensor, "batch src d_model"],
        mask: Bool[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "batch new d_model"]:
        """Attend from x to the memory that `__init__` was given."""
        w_query = self.attention.query_key_value.weight[: self.attention.sizes[0]]
        query = self.attention.split_heads(F.linear(x, w_query))
        heads = self.attention.attend(query, self.key, self.value, mask, dropout=0.0)
        return self.attention.join_heads(heads)

    def keep(self, rows: Int[Tensor, " kept"]) -> None:
        """Go on with these sentences of the batch only."""
        self.key, self.value = self.key[rows], self.value[rows]


@dataclass
class DecoderCache:
    """What decoding keeps from step to step; `step` counts the positions so far.

    `decoder` shares all weights with the model's own; its attentions are cached.
    """

    decoder: nn.Module
    memory: Float[Tensor, "batch src d_model"]
    src_mask: Bool[Tensor, "batch 1 1 src"]
    step: int = 0

    def keep(self, rows: Int[Tensor, " kept"]) -> None:
        """Go on with these sentences of the batch only."""
        self.memory, self.src_mask = self.memory[rows], self.src_mask[rows]
        for module in self.decoder.modules():
            if isinstance(module, CachedSelfAttention | CachedCrossAttention):
                module.keep(rows)
