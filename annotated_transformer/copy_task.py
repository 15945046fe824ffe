"""The copy task: the smallest task that needs the whole model to work."""

import torch
from jaxtyping import Int
from torch import Tensor

from annotated_transformer.batches import Batch
from annotated_transformer.errors import InputError
from annotated_transformer.special import BOS, EOS, UNK

FIRST_SYMBOL = UNK + 1  # symbols start after the special tokens


def copy_batch(
    batch: int,
    length: int,
    vocab_size: int,
    *,
    generator: torch.Generator | None = None,
) -> Batch:
    """Random symbols, to be copied in the same order.

    Source and target end with the end token; the target also begins with the start
    token, the same one that decoding starts from. Raises InputError if the vocabulary
    has no symbols, or if a size is below 1.
    """
    if vocab_size <= FIRST_SYMBOL:
        raise InputError(
            f"vocab_size ({vocab_size}) must be above {FIRST_SYMBOL}: "
            f"the first {FIRST_SYMBOL} ids are special tokens"
        )
    if batch < 1 or length < 1:
        raise InputError(f"batch ({batch}) and length ({length}) must be 1 or more")
    symbols = torch.randint(
        FIRST_SYMBOL, vocab_size, (batch, length), generator=generator
    )
    start, end = torch.full((batch, 1), BOS), torch.full((batch, 1), EOS)
    return Batch(torch.cat([symbols, end], 1), torch.cat([start, symbols, end], 1))


def exact_match(outputs: list[list[int]], src: Int[Tensor, "batch length"]) -> float:
    """The percentage of outputs that repeat their source, symbol for symbol."""
    hits = [out == ids.tolist()[:-1] for out, ids in zip(outputs, src, strict=True)]
    return 100 * sum(hits) / len(hits)
