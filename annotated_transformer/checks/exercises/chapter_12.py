"""Checks of chapter 12, The copy task: one for each exercise."""

from typing import Any

import torch

from annotated_transformer.batches import Batch
from annotated_transformer.checks.common import Answer, Function, exercise, seeded
from annotated_transformer.copy_task import copy_batch
from annotated_transformer.special import BOS, EOS, SPECIALS
from annotated_transformer.transformer import Transformer

__all__ = [
    "check_batch",
    "check_reverse",
    "check_sort",
    "check_task",
    "check_unordered",
]

NAMES = [*SPECIALS, *"abcdefghij"]


def spell(ids: Any) -> Any:
    """Ids as their names."""
    return " ".join(NAMES[i] for i in ids)


def check_batch(
    size: tuple[int, int], make_batch: Function, right: Any, mistakes: Any
) -> str:
    """One batch of a task: is its target what it should be?"""
    made = make_batch(*size, len(NAMES), generator=seeded(0))
    if not isinstance(made, Batch):
        return "return one Batch(src, tgt)"
    plain = copy_batch(*size, len(NAMES), generator=seeded(0))
    if made.src.shape != plain.src.shape:
        return "the source has another shape: use the arguments batch and length"
    if not torch.equal(made.src, plain.src):
        return "the source has changed: pass the generator on, change the target"
    if made.tgt.shape != plain.tgt.shape:
        return "the target needs a start token, the symbols and an end token"
    if made.tgt.dtype != plain.tgt.dtype:
        return f"ids are whole numbers: your target is {made.tgt.dtype}"
    if torch.equal(made.tgt, plain.tgt):
        return "the target is still a copy"
    if not (made.tgt[:, 0] == BOS).all() or not (made.tgt[:, -1] == EOS).all():
        return "start or end token have moved: change only what is between them"
    symbols, found = plain.src[:, :-1], made.tgt[:, 1:-1]
    for wrong, message in mistakes:
        if torch.equal(found, wrong(symbols)):
            return message
    if torch.equal(found, right(symbols)):
        return "correct"
    return f"for {spell(symbols[0])} the symbols are {spell(found[0])}"


def check_task(make_batch: Function, right: Any, mistakes: Any) -> str:
    """Batches of a task, of two sizes."""
    first = check_batch((3, 5), make_batch, right, mistakes)
    if first != "correct":
        return first
    return check_batch((2, 7), make_batch, right, mistakes)


@exercise
def check_reverse(make_batch: Answer) -> str:
    """`reverse_batch(batch, length, vocab_size, generator=...)`: backwards."""
    by_batch = "you flipped axis 0, the batch: the symbols run along axis 1"
    mistakes = [(lambda x: x.flip(0), by_batch), (lambda x: x.flip(0, 1), by_batch)]
    return check_task(make_batch, lambda x: x.flip(1), mistakes)


@exercise
def check_unordered(build: Answer) -> str:
    """`unordered_model()`: an encoder that sees no order."""
    net = build()
    if not isinstance(net, Transformer):
        return "return the model itself"
    if not net.src_embeddings.weight.any():
        return "all tokens look alike now: empty the positions, not the embeddings"
    if any("positions" in name for name, _ in net.named_parameters()):
        return "these positions are trained: they would not stay empty"
    src = copy_batch(2, 100, len(NAMES), generator=seeded(0)).src
    try:
        with torch.no_grad():
            forth = net.eval().encode(src)
            back = net.encode(src.flip(1)).flip(1)
    except TypeError:
        return "model.positions is called with (x, start): keep it, empty its table"
    if not torch.allclose(forth, back, atol=1e-5):
        return "the encoder still sees the order: is every row zero, and none cut off?"
    return "correct"


@exercise
def check_sort(make_batch: Answer) -> str:
    """`sort_batch(batch, length, vocab_size, generator=...)`: ascending."""
    mistakes = [
        (lambda x: x.sort(1, descending=True).values, "the smallest comes first"),
        (lambda x: x.sort(0).values, "you sorted axis 0, the batch: take axis 1"),
        (lambda x: x.sort(1).indices, "these are the indices: take .values"),
    ]
    return check_task(make_batch, lambda x: x.sort(1).values, mistakes)
