"""Attention maps on request: recorded from outside the model, while a block runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from annotated_transformer.attention import attention
from annotated_transformer.devices import other_attention


@contextmanager
def record_attention(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Collect the attention maps of the forward passes run inside the `with` block.

    Yields a dict from module name ("decoder.layers.0.cross_attention") to the weights
    (batch, heads, query, key) of the last pass, before dropout. The maps come from the
    same pass as the output: inside the block, `attend` is the `attention` of Eq. 1,
    which returns its weights. Afterwards the model keeps nothing.
    """
    maps: dict[str, Tensor] = {}
    with other_attention(model, lambda name: recorder(maps, name)):
        yield maps


def recorder(maps: dict[str, Tensor], name: str) -> Any:
    """An `attend` that stores its weights in `maps`, under this name."""

    def attend(*arguments: Tensor | None, dropout: float) -> Tensor:
        heads, maps[name] = attention(*arguments, dropout=dropout)  # type: ignore
        return heads

    return attend
