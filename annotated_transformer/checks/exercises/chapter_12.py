"""Checks of chapter 12, The copy task: one for each exercise."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from annotated_transformer.batches import Batch
from annotated_transformer.checks.common import (
    Answer,
    errors_mean,
    exercise,
    need,
    normal,
    same,
    seeded,
)
from annotated_transformer.copy_task import FIRST_SYMBOL, copy_batch
from annotated_transformer.special import BOS, EOS, SPECIALS
from annotated_transformer.transformer import Transformer

__all__ = ["check_reverse", "check_sort", "check_unordered"]

NAMES = [*SPECIALS, *"abcdefghij"]


def spell(ids: Sequence[int]) -> str:
    """Ids as their names."""
    return " ".join(NAMES[i] for i in ids)


Change = Callable[[Tensor], Tensor]
Changes = list[tuple[Change, str]]


def _check_task(make_batch: Answer, right: Change, mistakes: Changes) -> None:
    """Batches of a task, of several sizes: are their targets what they should be?"""
    for sizes in ((3, 5, 14), (2, 7, 14), (1, 1, 14), (500, 12, 14), (4, 60, 600)):
        made = make_batch(*sizes, generator=seeded(0))
        _name_source(made, *sizes)
        ends = "the target needs a start token, the symbols and an end token"
        need(made.tgt.shape == (sizes[0], sizes[1] + 2), ends)
        whole = f"ids are whole numbers: your target is {made.tgt.dtype}"
        need(not made.tgt.is_floating_point(), whole)
        symbols, found = made.src[:, :-1], made.tgt[:, 1:-1]
        kept = (made.tgt[:, 0] == BOS).all() and (made.tgt[:, -1] == EOS).all()
        moved = "start or end token have moved: change only what is between them"
        need(kept, moved)
        wanted = right(symbols)
        if torch.equal(found, wanted):
            continue
        need(not torch.equal(found, symbols), "the target is still a copy")
        for wrong, message in mistakes:
            need(not torch.equal(found, wrong(symbols)), message)
        row = int((found != wanted).any(1).nonzero()[0])
        if sizes[2] > len(NAMES) or found.min() < 0 or found.max() >= len(NAMES):
            need(False, f"another target for batch, length, vocab_size = {sizes}")
        words = [spell(ids[row].tolist()) for ids in (symbols, found)]
        need(False, "for {} the symbols are {}".format(*words))
    again, other = (make_batch(3, 5, 14, generator=seeded(seed)) for seed in (0, 1))
    first = make_batch(3, 5, 14, generator=seeded(0))
    generator = "do you pass the generator on?"
    need(torch.equal(first.src, again.src), f"one seed, two batches: {generator}")
    need(not torch.equal(first.src, other.src), f"two seeds, one batch: {generator}")


def _name_source(made: Batch, batch: int, length: int, vocab_size: int) -> None:
    """Raise a Mistake unless the source holds random symbols and an end token."""
    need(isinstance(made, Batch), "return one Batch(src, tgt)")
    plain = copy_batch(batch, length, vocab_size, generator=seeded(0)).src
    swapped = made.src.shape[1:] == (length + 2,) and (made.src[:, 0] == BOS).all()
    need(not swapped, "src and tgt have changed places: Batch(src, tgt)")
    size = "the source has another shape: use the arguments batch and length"
    need(made.src.shape == plain.shape, size)
    whole = f"ids are whole numbers: your source is {made.src.dtype}"
    need(not made.src.is_floating_point(), whole)
    end = "the source should end with the end token: change the target alone"
    need((made.src[:, -1] == EOS).all(), end)
    symbols = made.src[:, :-1]
    special = f"symbols are ids from {FIRST_SYMBOL} to vocab_size - 1"
    need(symbols.min() >= FIRST_SYMBOL and symbols.max() < vocab_size, special)
    if symbols.numel() > 200:
        kinds, expected = len(symbols.unique()), len(plain[:, :-1].unique())
        missing = f"{kinds} symbols of {vocab_size - FIRST_SYMBOL}: use vocab_size"
        need(kinds > 0.8 * expected and (kinds == expected or kinds > 50), missing)
        alone = "the source is in order already: draw random symbols"
        need(not torch.equal(symbols, symbols.sort(1).values), alone)


@exercise
def check_reverse(make_batch: Answer) -> None:
    """`reverse_batch(batch, length, vocab_size, generator=...)`: backwards."""
    by_batch = "you flipped axis 0, the batch: the symbols run along axis 1"
    mistakes: Changes = [
        (lambda x: x.flip(0), by_batch),
        (lambda x: x.flip(0, 1), by_batch),
        (lambda x: x.sort(1).values, "sorted, not backwards"),
        (lambda x: x.roll(1, 1), "moved by one, not backwards"),
        (lambda x: x.roll(-1, 1), "moved by one, not backwards"),
    ]
    _check_task(make_batch, lambda x: x.flip(1), mistakes)


@exercise
def check_sort(make_batch: Answer) -> None:
    """`sort_batch(batch, length, vocab_size, generator=...)`: ascending."""
    indices = "these are the indices: take .values"
    mistakes: Changes = [
        (lambda x: x.sort(1, descending=True).values, "the smallest comes first"),
        (lambda x: x.sort(0).values, "you sorted axis 0, the batch: take axis 1"),
        (lambda x: x.flatten().sort().values.view(x.shape), "sort each row by itself"),
        (lambda x: x.sort(1).indices, indices),
        (lambda x: x.sort(1).indices + FIRST_SYMBOL, indices),
        (lambda x: x.flip(1), "backwards, not sorted"),
    ]
    _check_task(make_batch, lambda x: x.sort(1).values, mistakes)


@exercise
def check_unordered(build: Answer) -> None:
    """`unordered_model()`: an encoder that sees no order."""
    net = build()
    need(isinstance(net, Transformer), "return the model itself")
    need(build() is not net, "the same model twice: make a new one in each call")
    alive = "all tokens look alike now: empty the positions, not the embeddings"
    need(net.src_embeddings.weight.any() and net.tgt_embeddings.weight.any(), alive)
    trained = "these positions are trained: they would not stay empty"
    names = [name for name, _ in net.named_parameters()]
    need(not any("positions" in name for name in names), trained)
    encode = _encoder(net.eval())
    src = copy_batch(2, 100, len(NAMES), generator=seeded(0)).src
    longer = copy_batch(1, 1000, len(NAMES), generator=seeded(1)).src
    order = "the encoder still sees the order: is every row zero, and none cut off?"
    for ids in (src[:, :2], src, longer):
        for shuffled in (torch.arange(ids.size(1)).flip(0), _shuffle(ids.size(1))):
            moved = encode(ids[:, shuffled])
            need(same(moved, encode(ids)[:, shuffled], 1e-4), order)
    other = src.clone()
    other[:, 0] = 4 + (src[:, 0] == 4).long()  # another symbol
    change = (encode(other) - encode(src)).abs().amax((0, 2))
    need(change[0] > 1e-3, "the tokens themselves are lost: only positions go")
    deaf = "the words don't see each other any more: only positions go, no attention"
    need(change[1:].max() > 1e-4, deaf)


def _shuffle(n: int) -> Tensor:
    return normal(n).argsort()


def _encoder(net: Transformer) -> Change:
    """The encoder of a model, with what its errors mean."""

    def encode(ids: Tensor) -> Tensor:
        called = "model.positions is called with (x, start): keep it, empty its table"
        with torch.no_grad(), errors_mean(f"{called} ({{error}})", Exception):
            return net.encode(ids)

    return encode
