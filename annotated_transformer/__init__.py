"""The Transformer of "Attention Is All You Need" (Vaswani et al. 2017).

One noun per module: start with `attention`, end with `transformer`. The notebooks of
the course show these same definitions, letter for letter.
"""

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
