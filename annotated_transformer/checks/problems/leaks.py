"""A detector of what the mask should hide, problem 1.6."""

import math

from torch import Tensor

from annotated_transformer.attention import attention
from annotated_transformer.checks.common import (
    Function,
    Mistake,
    need,
    verdict,
)

__all__ = ["check_sees_hidden"]


def check_sees_hidden(detector: Function, part: str = "", *, seed: int = 0) -> str:
    """`sees_hidden(attention)`: True if what the mask hides changes the output.

    Parts: "values" (hidden values leak), "keys" (hidden keys do), "honest" (no alarm).
    """
    return verdict(detector, part, seed, values=_values, keys=_keys, honest=_honest)


def _number_instead(number: float) -> Function:
    def careless(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        scores = query @ key.mT / math.sqrt(query.size(-1))
        return scores.masked_fill(~mask, number).softmax(-1) @ value

    return careless


def _unused_mask(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    return attention(query, key, value)[0]


def _masked_too_late(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    return attention(query, key, value)[1].masked_fill(~mask, 0.0) @ value


def _reversed_mask(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    return attention(query, key, value, ~mask)[0]


def _plain(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    return attention(query, key, value, mask)[0]


def _finds(detector: Function, function: Function) -> bool:
    answer = detector(function)
    if answer is None or answer is ...:
        raise Mistake("not done yet: it returns nothing")
    if isinstance(answer, Tensor) and answer.numel() == 1:
        answer = answer.item()
    need(isinstance(answer, bool), f"return True or False, not {type(answer).__name__}")
    return answer


def _values(detector: Function, seed: int) -> None:
    for function, message in (
        (_unused_mask, "misses an attention that never uses its mask"),
        (_number_instead(-1e-9), "misses the careless attention of this problem"),
        (
            _number_instead(-8.0 - seed % 3),
            "misses a leak of 0.03 %: compare exactly, change what is hidden by much",
        ),
        (_reversed_mask, "misses a mask that is used upside down"),
    ):
        need(_finds(detector, function), message)
    need(
        not _finds(detector, _plain),
        "it calls every attention guilty: compare two outputs, with what is hidden "
        "changed in between",
    )


def _keys(detector: Function, seed: int) -> None:
    message = (
        "misses a mask that comes after the softmax: there hidden KEYS still take "
        "their share. Change keys, not values alone"
    )
    need(_finds(detector, _masked_too_late), message)
    need(not _finds(detector, _plain), "it calls every attention guilty")


def _honest(detector: Function, seed: int) -> None:
    def doubled(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        return (2 + seed) * _plain(query, key, value, mask)

    for function, what in (
        (_plain, "a right attention"),
        (doubled, "twice its output"),
    ):
        need(
            not _finds(detector, function),
            f"false alarm for {what}: only what the mask HIDES may be changed",
        )
    need(_finds(detector, _unused_mask), "it never finds anything")
