"""A made-up language model for the checks of decoding."""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from annotated_transformer.checks.common import need, seeded
from annotated_transformer.special import BOS, EOS, PAD, UNK

VOCAB = 9


class TableCache:
    """The cache of a TableModel: what each row has read so far."""

    def __init__(self, model: "TableModel", rows: int, capacity: int):
        self.model, self.step, self.capacity = model, 0, capacity
        self.histories: list[tuple[int, ...]] = [()] * rows

    def keep(self, rows: Any) -> None:
        """Go on with these rows, in this order."""
        self.model.kept += 1
        old = [int(row) for row in rows]
        there = all(0 <= row < len(self.histories) for row in old)
        last = len(self.histories) - 1
        need(
            there,
            f"cache.keep got {old}, but the cache has rows 0 to {last}: name the OLD "
            "rows that the new ones come from",
        )
        self.histories = [self.histories[row] for row in old]


class TableModel:
    """A made-up language model with the interface of `Transformer`, that notes its use.

    The logits of the next token depend on all that was read, by a table drawn from the
    seed: so a search can be checked exactly, and without a trained network.
    """

    training = False

    def __init__(self, seed: int, *, end: float = 0.0):
        self.seed, self.end = seed, end
        self.encoded = self.kept = self.overflow = 0
        self.read: list[Tensor] = []

    def eval(self) -> "TableModel":
        """There is no dropout here."""
        return self

    def start(self, src: Tensor, capacity: int) -> TableCache:
        """Encode the source, once."""
        self.encoded += 1
        return TableCache(self, len(src), capacity)

    def step(self, ids: Tensor, cache: TableCache, tgt_mask: Any = None) -> Tensor:
        """Logits (rows, 1, vocab) after one more token in each row."""
        shape = "step wants ids of shape (rows, 1): one new token in each row"
        need(isinstance(ids, Tensor) and ids.dim() == 2, shape)
        (rows, n), known = ids.shape, len(cache.histories)
        again = "the cache knows the earlier ones, so give the newest alone"
        need(n == 1, f"step got {n} tokens a row: {again}")
        keep = "cache.keep(rows) picks its rows, in your order"
        need(rows == known, f"{rows} rows of ids, but the cache has {known}: {keep}")
        self.read.append(ids.clone())
        cache.step += 1
        self.overflow = max(self.overflow, cache.step - cache.capacity)
        cache.histories = [
            (*history, int(token))
            for history, token in zip(cache.histories, ids[:, 0], strict=True)
        ]
        return torch.stack([self.logits(h) for h in cache.histories])[:, None]

    def __call__(self, src: Tensor, tgt: Tensor) -> Tensor:
        """The whole target again: right, but what the cache is there to avoid."""
        self.encoded += 1
        rows = [
            torch.stack([self.logits(tuple(row[: i + 1])) for i in range(len(row))])
            for row in tgt.tolist()
        ]
        return torch.stack(rows)

    def logits(self, history: tuple[int, ...]) -> Tensor:
        """The scores of the next token, far from normalized."""
        logits = table_row(self.seed, history).clone()
        logits[EOS] += self.end + 0.4 * (len(history) - 4)
        logits[[PAD, BOS, UNK]] = -40.0
        return logits


@lru_cache(100_000)
def table_row(seed: int, history: tuple[int, ...]) -> Tensor:
    """One row of the table, drawn when it is first asked for."""
    for token in history:
        seed = (seed * 31 + token + 1) % 1_000_003
    g = seeded(seed)
    logits = 2.5 * torch.randn(VOCAB, generator=g)
    return logits + 4 * torch.randn(1, generator=g)  # shifts no probability


SRC = torch.tensor([[5, 6, 7, EOS]])


def need_room(model: TableModel) -> None:
    """Every token that was read had its place in the cache."""
    room = "too small: model.start(src, limit) makes room for all tokens"
    need(model.overflow <= 0, f"the cache is {model.overflow} {room}")


def need_cache(model: TableModel) -> None:
    """A Mistake unless the source was encoded once, and decoded step by step."""
    unused = "the cache is not used: model.start once, then model.step for each token"
    need(model.read, unused)
    once = "call model.start once, before the loop"
    need(model.encoded == 1, f"the source was encoded {model.encoded} times: {once}")
