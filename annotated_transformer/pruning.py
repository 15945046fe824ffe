"""Heads that leave for good: their rows and columns go, where zeros would stay."""

from collections.abc import Collection, Iterable
from copy import deepcopy
from itertools import groupby

import torch
from torch import Tensor

from annotated_transformer.attention import MultiHeadAttention
from annotated_transformer.transformer import Transformer


@torch.no_grad()
def without_heads(
    attention: MultiHeadAttention, gone: Collection[int]
) -> MultiHeadAttention:
    """A smaller copy without these heads: it says what the others say (§3.2.2).

    A head owns rows of W^Q, W^K and W^V, and columns of W^O. Raises ValueError if no
    head would stay, or if there is none of that number.
    """
    a, kept = attention, [h for h in range(attention.n_heads) if h not in gone]
    if not kept or len(kept) + len(set(gone)) != a.n_heads:
        raise ValueError(
            f"heads {sorted(gone)} of {a.n_heads} can't go: number them from 0, "
            "and leave one"
        )
    d_model = a.output.out_features
    small = MultiHeadAttention(
        d_model, len(kept), d_k=a.d_k, d_v=a.d_v, dropout=a.dropout
    )

    def rows(weight: Tensor) -> Tensor:
        return weight.unflatten(0, (a.n_heads, -1))[kept].flatten(0, 1)

    parts = a.query_key_value.weight.split(a.sizes)
    small.query_key_value.weight.copy_(torch.cat([rows(part) for part in parts]))
    small.output.weight.copy_(rows(a.output.weight.T).T)
    return small.train(a.training)


def prune(model: Transformer, heads: Iterable[tuple[str, int]]) -> Transformer:
    """A smaller copy of a model; a head is the name of its attention, and its number.

    It has no settings of its own, which know one number of heads for all layers.
    """
    copy = deepcopy(model)
    for name, group in groupby(sorted(heads), key=lambda head: head[0]):
        attention = copy.get_submodule(name)
        if not isinstance(attention, MultiHeadAttention):
            raise ValueError(f"{name!r} is no attention: it has no heads to lose")
        copy.set_submodule(name, without_heads(attention, {h for _, h in group}))
    return copy
