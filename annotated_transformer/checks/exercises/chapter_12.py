"""Checks of chapter 12, The copy task: one for each exercise."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from annotated_transformer.batches import Batch
from annotated_transformer.checks.common import (
    Answer,
    compare,
    errors_mean,
    exercise,
    need,
    normal,
    same,
    seeded,
)
from annotated_transformer.checks.problems.decoding import (
    decoded,
    greedy_reference,
    need_greedy,
)
from annotated_transformer.checks.problems.table_model import TableModel
from annotated_transformer.copy_task import FIRST_SYMBOL, copy_batch, exact_match
from annotated_transformer.special import BOS, EOS, PAD, SPECIALS
from annotated_transformer.transformer import Transformer

__all__ = [
    "check_exact_match",
    "check_greedy_by_hand",
    "check_levels",
    "check_reverse",
    "check_sort",
    "check_unordered",
]

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


class Mumbler(TableModel):
    """A table whose likeliest token is padding, as that of a fresh model may be."""

    def logits(self, history: tuple[int, ...]) -> Tensor:
        """The scores of the next token; nothing forbids padding and start token."""
        logits = super().logits(history)
        logits[[PAD, BOS]] = torch.tensor([60.0, 50.0])
        return logits


@exercise
def check_greedy_by_hand(function: Answer) -> None:
    """`my_greedy(model, src, steps)`: one sentence's ids, the target read whole."""
    ends = "model(src, tgt) wants tgt as ids of shape (1, length) ({error})"
    with errors_mean(ends, RuntimeError, IndexError, TypeError):
        need_greedy(function, 0)
    found = decoded(function, Mumbler(0, end=1.0), 12)
    special = "padding is written where it is likeliest: call forbid_specials first"
    need(PAD not in found, special)
    right = greedy_reference(TableModel(0, end=1.0), 12)
    need(found == right, f"with padding forbidden it is {right}, not {found}")


# Outputs and what should have been written: symbol for symbol, in another order, too
# short, too long, and with a wrong end. Each mistake below has a count of its own.
COPIES: list[tuple[list[int], list[int]]] = [
    *((row, row) for row in ([4, 5], [5, 4], [6, 6])),
    ([7, 6], [6, 7]),
    *((row[:1], row) for row in ([8, 9], [9, 8])),
    *(([*row, row[1]], row) for row in ([9, 7], [5, 6], [4, 8])),
    *(([a, c], [a, b]) for a, b, c in ((7, 9, 8), (4, 4, 5), (6, 5, 4))),
    *(([a, c], [a, b]) for a, b, c in ((8, 8, 9), (5, 5, 6))),
]


def _rate(alike: Callable[[list[int], list[int]], bool]) -> float:
    return 100 * sum(alike(out, row) for out, row in COPIES) / len(COPIES)


def _exact_mistakes(right: float) -> Iterator[tuple[float, str]]:
    tokens = sum(sum(map(int.__eq__, *pair)) for pair in COPIES)
    order = "the order counts: compare the lists as they are"
    yield right / 100, "that is a fraction: a percentage is 100 times as much"
    yield 0.0, "none is equal: the source ends with the end token, the outputs don't"
    yield 50 * tokens / len(COPIES), "that counts tokens: all must be right, or none is"
    for alike, message in (
        (lambda out, row: out == row[: len(out)], "an output that stops too early"),
        (lambda out, row: row == out[: len(row)], "an output that goes on too long"),
    ):
        yield _rate(alike), f"{message} is no copy"
    yield _rate(lambda out, row: set(out) == set(row)), order
    yield _rate(lambda out, row: sorted(out) == sorted(row)), order
    equal = "you compare the lengths: compare the symbols"
    yield _rate(lambda out, row: len(out) == len(row)), equal
    yield 3.0, "that is the number of hits: divide by the number of outputs"
    yield 300.0, "divide by the number of outputs"


@exercise
def check_exact_match(function: Answer) -> None:
    """`my_exact_match(outputs, src)`: the percentage of perfect copies."""
    outputs = [out for out, _ in COPIES]
    src = torch.tensor([[*row, EOS] for _, row in COPIES])
    found = function(outputs, src)
    single = isinstance(found, Tensor) and found.numel() == 1
    number = isinstance(found, int | float) or single
    need(number, f"return one number, not a {type(found).__name__}")
    right = exact_match(outputs, src)
    compare(float(found), right, _exact_mistakes(right))
    one = function([[5, 6, 7]], torch.tensor([[5, 6, 7, EOS]]))
    compare(float(one), 100.0, hint="one output of three symbols, which is right")


@exercise
def check_levels(function: Answer) -> None:
    """`my_levels()`: four losses in nats per token, and a percentage."""
    found, log = function(), math.log
    need(isinstance(found, Mapping), "return the five numbers by their names")
    right = {
        "undecided": log(9),
        "frequencies": (log(3) + 2 * log(12)) / 3,
        "end": 2 / 3 * log(8),
        "answer": 0.0,
        "whole": 100 * 0.9**3,
    }
    equal = "</s> is one token in three, each letter one in twelve"
    free = "the end is known, and costs nothing: count it among the three tokens"
    mistakes: Mapping[str, Sequence[tuple[float, str]]] = {
        "undecided": ((log(8), "it may write </s>, too"),),
        "frequencies": ((log(9), equal), (log(8), equal)),
        "end": ((log(8), free), (2 * log(8), "that is a whole sequence: per token")),
        "answer": ((1.0, "it gives the label probability 1: what is -log of that?"),),
        "whole": (
            (100 * 0.9**2, "the end token must be right as well"),
            (90.0, "that is one token: a sequence has three"),
            (0.9**3, "as a percentage"),
        ),
    }
    for name, value in right.items():
        answer = found.get(name)
        if answer is None or answer is ...:
            need(any(found.get(key, ...) is not ... for key in right), "not done yet")
            need(False, f"{name!r} is still open")
        need(isinstance(answer, int | float | Tensor), f"{name!r} should be a number")
        number = float(answer)
        for wrong, message in mistakes[name]:
            need(abs(number - wrong) > 0.006 * max(1, wrong), f"{name!r}: {message}")
        bits = value > 0 and abs(number - value / log(2)) < 0.006
        need(not bits or name == "whole", f"{name!r} is in bits: use math.log")
        close = abs(number - value) < 0.006 * max(1, value)
        need(close, f"{name!r} is not {number:.3f}: who gives which token how much?")


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
    net, other_net = build(), build()
    models = isinstance(net, Transformer) and isinstance(other_net, Transformer)
    need(models, "return the model itself")
    need(other_net is not net, "the same model twice: make a new one in each call")
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
