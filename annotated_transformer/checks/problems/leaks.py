"""A detector of what the mask should hide, problem 1.6."""

import math

from torch import Tensor

from annotated_transformer.attention import attention
from annotated_transformer.checks.common import (
    Answer,
    Function,
    need,
    need_truth,
    verdict,
)

__all__ = ["check_sees_hidden"]


def check_sees_hidden(detector: Function, part: str = "", *, seed: int = 0) -> str:
    """`sees_hidden(attention)`: True if what the mask hides changes the output.

    Parts: "values" (hidden values leak), "keys" (hidden keys do), "honest" (no alarm).
    """
    return verdict(detector, part, seed, values=_values, keys=_keys, honest=_honest)


def number_instead(number: float) -> Function:
    """An attention that hides by a score of this number, not by -inf."""

    def careless(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        scores = query @ key.mT / math.sqrt(query.size(-1))
        return scores.masked_fill(~mask, number).softmax(-1) @ value

    return careless


def plain(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """A right attention."""
    return attention(query, key, value, mask)[0]


def unused_mask(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """One that never looks at its mask."""
    return attention(query, key, value)[0]


def masked_too_late(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """One whose hidden keys take their part of the softmax first."""
    return attention(query, key, value)[1].masked_fill(~mask, 0.0) @ value


def reversed_mask(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """One that hides what should be seen."""
    return plain(query, key, value, ~mask)


def finds(detector: Answer, function: Function) -> bool:
    """What the detector says."""
    answer = detector.let(function)
    need(answer is not None, "not done yet: it returns nothing")
    return need_truth(answer)


GUILTY = "it calls every attention guilty: compare two outputs of ONE function"


def _values(detector: Answer, seed: int) -> None:
    tiny = "misses a leak of 0.03 %: compare exactly, change what is hidden by much"
    for function, message in (
        (unused_mask, "misses an attention that never uses its mask"),
        (number_instead(-1e-9), "misses the careless attention of this problem"),
        (number_instead(-8.0 - seed % 3), tiny),
        (number_instead(-12.0), tiny),
        (reversed_mask, "misses a mask that is used upside down"),
    ):
        need(finds(detector, function), message)
    need(not finds(detector, plain), f"{GUILTY}, with what is hidden changed between")


def _keys(detector: Answer, seed: int) -> None:
    late = "misses a mask that comes after the softmax: there hidden KEYS still count"
    message = f"{late}. Change keys, not values alone"
    need(finds(detector, masked_too_late), message)
    need(not finds(detector, plain), GUILTY)


def _honest(detector: Answer, seed: int) -> None:
    def doubled(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        return (2 + seed) * plain(query, key, value, mask)

    hidden = "only what the mask HIDES may be changed"
    for function, what in ((plain, "a right attention"), (doubled, "twice its output")):
        need(not finds(detector, function), f"false alarm for {what}: {hidden}")
    need(finds(detector, unused_mask), "it never finds anything")
