"""Attention maps on request: recorded from outside, for as long as somebody looks."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from annotated_transformer.attention import MultiHeadAttention, attention


@contextmanager
def record_attention(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Collect every attention map of the forward passes run inside the `with` block.

    Yields a dict from module name ("decoder.layers.0.cross_attention") to the weights
    (batch, heads, query, key) of the last pass, before dropout. The maps come from the
    same pass as the output: for a while, `attend` is the `attention` of Eq. 1, which
    has weights to show. Afterwards the model keeps nothing.
    """
    maps: dict[str, Tensor] = {}
    modules = dict(model.named_modules())
    watched = {n: m for n, m in modules.items() if isinstance(m, MultiHeadAttention)}
    outer: dict[str, Any] = {n: vars(m).get("attend") for n, m in watched.items()}
    try:
        for name, module in watched.items():
            module.attend = recorder(maps, name)
        yield maps
    finally:
        for name, module in watched.items():
            del module.attend
            if outer[name] is not None:  # a block around this one goes on recording
                module.attend = outer[name]


def recorder(maps: dict[str, Tensor], name: str) -> Any:
    """An `attend` that keeps its weights in `maps`, under this name."""

    def attend(*arguments: Tensor | None, dropout: float) -> Tensor:
        heads, maps[name] = attention(*arguments, dropout=dropout)  # type: ignore
        return heads

    return attend
