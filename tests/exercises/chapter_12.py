"""Chapter 12: right answers in several styles; wrong ones, and what must be said."""

import math
from dataclasses import replace

import torch
from torch import nn

from annotated_transformer.batches import Batch
from annotated_transformer.config import TINY
from annotated_transformer.copy_task import copy_batch, exact_match
from annotated_transformer.decoding import forbid_specials
from annotated_transformer.special import BOS, EOS, PAD
from annotated_transformer.transformer import Transformer


def task(change):
    """A copy task whose target is changed between start and end token."""

    def make_batch(batch, length, vocab_size, *, generator=None):
        made = copy_batch(batch, length, vocab_size, generator=generator)
        made.tgt[:, 1:-1] = change(made.tgt[:, 1:-1])
        return made

    return make_batch


def made(symbols, changed):
    start, end = (torch.full((len(symbols), 1), token) for token in (BOS, EOS))
    return Batch(torch.cat([symbols, end], 1), torch.cat([start, changed, end], 1))


def drawn(batch, length, vocab_size, *, generator=None, first=4):
    symbols = torch.randint(first, vocab_size, (batch, length), generator=generator)
    return made(symbols, symbols.flip(1))


def by_lists(change):
    def make_batch(batch, length, vocab_size, *, generator=None):
        src = copy_batch(batch, length, vocab_size, generator=generator).src
        rows = [[BOS, *change(ids[:-1]), EOS] for ids in src.tolist()]
        return Batch(src, torch.tensor(rows))

    return make_batch


def with_batch(change):
    """Right, but for what is done to the batch."""
    return lambda *sizes, generator: change(drawn(*sizes, generator=generator))


def whole(name):
    def make_batch(*sizes, generator):
        plain = copy_batch(*sizes, generator=generator)
        flipped = plain.tgt.flip(1) if name == "flip" else plain.tgt.sort(1).values
        return Batch(plain.src, flipped)

    return make_batch


def source_in_order(*sizes, generator):
    symbols = drawn(*sizes, generator=generator).src[:, :-1].sort(1).values
    return made(symbols, symbols)


CONFIG = replace(TINY, vocab_size=14, d_model=16, d_ff=16, n_layers=1)


def model(**changes):
    torch.manual_seed(0)
    return Transformer(replace(CONFIG, **changes))


def unordered(rows=None, **changes):
    net = model(**changes)
    net.positions.table.data[:rows] = 0
    return net


class NoPositions(nn.Module):
    def forward(self, x, start=0):
        return x


def positions(module):
    def build():
        net = model()
        net.positions = module
        return net

    return build


def same_row():
    net = model()
    net.positions.table[:] = net.positions.table[3].clone()
    return net


def short_table():
    net = model()
    net.positions.table = torch.zeros(11, 16)
    return net


def no_embeddings():
    net = unordered()
    net.src_embeddings.weight.data.zero_()
    return net


def no_layers():
    net = unordered()
    net.encoder.layers = nn.ModuleList()
    return net


def greedy(start=BOS, forbid=forbid_specials, choose="argmax", at=-1, end=EOS):
    """Greedy decoding with one thing changed."""

    def decode(model, src, steps):
        tgt = torch.tensor([[start]])
        for _ in range(steps):
            token = getattr(forbid(model(src, tgt)[:, at]), choose)(-1)
            if token == end:
                break
            tgt = torch.cat([tgt, token[None]], 1)
        return tgt[0, 1:].tolist()

    return decode


def greedy_by_lists(model, src, steps):
    ids = []
    while len(ids) < steps:
        logits = model(src, torch.tensor([[BOS, *ids]]))[0, -1]
        logits[PAD] = logits[BOS] = -math.inf
        token = logits.argmax().item()
        if token == EOS:
            return ids
        ids.append(token)
    return ids


def greedy_with_start(model, src, steps):
    return [BOS, *greedy()(model, src, steps)]


def greedy_forever(model, src, steps):
    return greedy()(model, src, steps + 3)


def rates(change):
    """The percentage of outputs for which `change` says yes."""

    def rate(outputs, src):
        pairs = zip(outputs, src[:, :-1].tolist(), strict=True)
        return 100 * sum(change(*pair) for pair in pairs) / len(outputs)

    return rate


def token_rate(outputs, src):
    rows = src[:, :-1].tolist()
    hits = [a == b for pair in map(zip, outputs, rows) for a, b in pair]
    return 100 * sum(hits) / src[:, :-1].numel()


def levels(**changes):
    right = {
        "undecided": math.log(9),
        "frequencies": math.log(3) / 3 + 2 * math.log(12) / 3,
        "end": 2 * math.log(2),
        "answer": 0,
        "whole": 72.9,
    }
    return lambda: right | changes


ONE = unordered()
BACKWARDS, SORT = "check_reverse", "check_sort"
GREEDY, EXACT, LEVELS = "check_greedy_by_hand", "check_exact_match", "check_levels"


RIGHT = [
    (GREEDY, greedy()),
    (GREEDY, greedy_by_lists),
    (GREEDY, torch.no_grad()(greedy())),
    (EXACT, exact_match),
    (EXACT, rates(lambda out, ids: out == ids)),
    (EXACT, lambda outputs, src: torch.tensor(exact_match(outputs, src))),
    (LEVELS, levels()),
    (LEVELS, levels(frequencies=2.0228, undecided=2.2, end=1.386, whole=73)),
    (BACKWARDS, task(lambda x: x.flip(1))),
    (BACKWARDS, drawn),
    (BACKWARDS, by_lists(lambda ids: ids[::-1])),
    (SORT, task(lambda x: x.sort(1).values)),
    (SORT, task(lambda x: x.gather(-1, x.argsort(-1)))),
    (SORT, by_lists(sorted)),
    ("check_unordered", unordered),
    ("check_unordered", positions(NoPositions())),
    ("check_unordered", same_row),
]
WRONG = [
    (GREEDY, lambda model, src, steps: None, "not done yet"),
    (GREEDY, greedy(start=PAD), "start from BOS, as in training"),
    (GREEDY, greedy(forbid=lambda logits: logits), "call forbid_specials first"),
    (GREEDY, greedy(choose="argmin"), "that is argmin"),
    (GREEDY, greedy(at=0), "with the likeliest token each time it is"),
    (GREEDY, greedy(end=-1), "the end token is no output"),
    (GREEDY, greedy_with_start, "the start token is no output"),
    (GREEDY, greedy_forever, "a model that never says EOS: stop after limit"),
    (EXACT, lambda outputs, src: None, "not done yet"),
    (EXACT, lambda outputs, src: exact_match(outputs, src) / 100, "a fraction"),
    (EXACT, rates(lambda out, ids: out == [*ids, EOS]), "ends with the end token"),
    (EXACT, token_rate, "that counts tokens"),
    (EXACT, rates(lambda out, ids: out == ids[: len(out)]), "stops too early"),
    (EXACT, rates(lambda out, ids: ids == out[: len(ids)]), "goes on too long"),
    (EXACT, rates(lambda out, ids: sorted(out) == sorted(ids)), "the order counts"),
    (EXACT, rates(lambda out, ids: len(out) == len(ids)), "you compare the lengths"),
    (EXACT, lambda outputs, src: 300 / 14, "one output of three symbols"),
    (EXACT, lambda outputs, src: "37.5", "return one number, not a str"),
    (LEVELS, lambda: dict.fromkeys(levels()(), ...), "not done yet"),
    (LEVELS, levels(end=...), "'end' is still open"),
    (LEVELS, levels(undecided=math.log(8)), "it may write </s>, too"),
    (LEVELS, levels(frequencies=math.log(9)), "</s> is one token in three"),
    (LEVELS, levels(end=math.log(8)), "the end is known, and costs nothing"),
    (LEVELS, levels(answer=1), "what is -log of that?"),
    (LEVELS, levels(whole=81), "the end token must be right as well"),
    (LEVELS, levels(undecided=math.log2(9)), "is in bits"),
    (LEVELS, levels(end=0.7), "'end' is not 0.700"),
    (BACKWARDS, lambda *sizes, generator: None, "not done yet"),
    (BACKWARDS, copy_batch, "the target is still a copy"),
    (BACKWARDS, whole("flip"), "start or end token have moved"),
    (BACKWARDS, task(lambda x: x.flip(0)), "you flipped axis 0, the batch"),
    (BACKWARDS, task(lambda x: x.flip(0, 1)), "you flipped axis 0, the batch"),
    (BACKWARDS, task(lambda x: x.roll(1, 1)), "moved by one"),
    (BACKWARDS, task(lambda x: x.sort(1).values), "sorted, not backwards"),
    (BACKWARDS, task(lambda x: x[:, [*range(1, x.size(1)), 0]]), "moved by one"),
    (BACKWARDS, lambda *sizes, generator: drawn(*sizes), "pass your generator on"),
    (
        BACKWARDS,
        lambda *sizes, generator: drawn(*sizes, generator=torch.Generator()),
        "two seeds, one batch",
    ),
    (
        BACKWARDS,
        lambda *sizes, generator: drawn(*sizes, first=0, generator=generator),
        "symbols are ids from 4",
    ),
    (
        BACKWARDS,
        lambda batch, n, _, generator: drawn(batch, n, 14, generator=generator),
        "10 symbols of 596",
    ),
    (
        BACKWARDS,
        lambda *sizes, generator: drawn(3, 5, 14, generator=generator),
        "use the arguments batch and length",
    ),
    (BACKWARDS, with_batch(lambda x: (x.src, x.tgt)), "return one Batch(src, tgt)"),
    (BACKWARDS, with_batch(lambda x: Batch(x.tgt, x.src)), "have changed places"),
    (
        BACKWARDS,
        with_batch(lambda x: Batch(x.src.flip(1), x.tgt)),
        "the source should end with the end token",
    ),
    (
        BACKWARDS,
        with_batch(lambda x: Batch(x.src, x.tgt[:, 1:-1])),
        "needs a start token, the symbols and an end token",
    ),
    (SORT, copy_batch, "the target is still a copy"),
    (SORT, whole("sort"), "start or end token have moved"),
    (SORT, task(lambda x: x.sort(1, descending=True).values), "smallest comes first"),
    (SORT, task(lambda x: x.sort(0).values), "you sorted axis 0, the batch"),
    (SORT, task(lambda x: x.sort(1).indices), "these are the indices"),
    (SORT, task(lambda x: x.argsort(1) + 4), "these are the indices"),
    (SORT, task(lambda x: x.flip(1)), "backwards, not sorted"),
    (SORT, task(lambda x: x.flatten().sort()[0].view(x.shape)), "each row by itself"),
    (SORT, by_lists(lambda ids: sorted(ids, key=str)), "the symbols are"),
    (SORT, source_in_order, "the source is in order already"),
    ("check_unordered", lambda: None, "not done yet"),
    ("check_unordered", model, "the encoder still sees the order"),
    ("check_unordered", lambda: unordered(rows=11), "and none cut off"),
    ("check_unordered", lambda: unordered(rows=500), "and none cut off"),
    ("check_unordered", short_table, "and none cut off"),
    ("check_unordered", lambda: unordered(positions="learned"), "are trained"),
    ("check_unordered", lambda: unordered().encoder, "return the model itself"),
    ("check_unordered", lambda: ONE, "the same model twice"),
    ("check_unordered", positions(nn.Identity()), "is called with (x, start)"),
    ("check_unordered", no_embeddings, "all tokens look alike now"),
    ("check_unordered", no_layers, "don't see each other any more"),
]
