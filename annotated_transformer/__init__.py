"""The Transformer of "Attention Is All You Need" (Vaswani et al. 2017).

One noun per module: start with `attention`, end with `transformer`. The notebooks of
the course show these same definitions, letter for letter.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from annotated_transformer.config import BASE, BIG, SMALL, TINY, TransformerConfig
    from annotated_transformer.errors import InputError
    from annotated_transformer.transformer import Transformer
    from annotated_transformer.translator import Translator

__all__ = [
    "BASE",
    "BIG",
    "SMALL",
    "TINY",
    "InputError",
    "Transformer",
    "TransformerConfig",
    "Translator",
]


def __getattr__(name: str) -> Any:
    """Import what is asked for, so that the command line can begin without PyTorch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    homes = {"InputError": "errors", "Transformer": "transformer"}
    home = homes.get(name, "translator" if name == "Translator" else "config")
    return getattr(import_module(f"{__name__}.{home}"), name)
