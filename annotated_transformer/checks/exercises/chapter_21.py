"""Checks of chapter 21, Three families: one for each exercise."""

import math
from collections.abc import Callable
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from annotated_transformer.checks.common import (
    Answer,
    compare,
    errors_mean,
    exercise,
    need,
    need_gradient,
    need_number,
    need_tensor,
    normal,
    seeded,
)
from annotated_transformer.special import PAD

__all__ = ["check_label_f1", "check_language_loss", "check_writing"]


Rule = Callable[[int, int], int]  # from a state and a symbol to the next state


def _loss(logits: Tensor, ids: Tensor) -> Tensor:
    return F.cross_entropy(logits[:, :-1].mT, ids[:, 1:], ignore_index=PAD)


def _loss_mistakes(logits: Tensor, ids: Tensor) -> list[tuple[float, str]]:
    """What comes out by one mistake each."""
    real = ids[:, 1:] != PAD
    each = F.cross_entropy(logits[:, :-1].mT, ids[:, 1:], reduction="none")
    rows = (each * real).sum(1) / real.sum(1)
    wrong = [
        (
            F.cross_entropy(logits.mT, ids, ignore_index=PAD),
            "each token is compared with itself: position i is asked for token i + 1",
        ),
        (
            F.cross_entropy(logits[:, 1:].mT, ids[:, :-1], ignore_index=PAD),
            "shifted the wrong way: that asks for the token before",
        ),
        (
            F.cross_entropy(logits.mT, ids.roll(-1, 1), ignore_index=PAD),
            "roll asks the last position for the first token: leave the last one out",
        ),
        (each.mean(), "padding is counted: labels that are PAD are asked of nobody"),
        ((each * real).sum() / ids.numel(), "divide by the number of real labels"),
        ((each * real).sum() / (ids != PAD).sum(), "the first token is never a label"),
        ((each * real).sum(), "the mean over the real labels, not the sum"),
        (rows.mean(), "the mean over all labels, not the mean of the rows' means"),
        (each[real].mean().exp(), "that is the perplexity: leave out the exp"),
        (each[real].mean() / math.log(2), "in nats: the natural logarithm"),
        (-each[real].mean(), "the sign: a loss is positive"),
    ]
    return [(value.item(), message) for value, message in wrong]


@exercise
def check_language_loss(function: Answer) -> None:
    """`my_language_loss(logits, ids)`: the mean loss of each next real token."""
    for seed, (batch, length, vocab) in enumerate([(3, 7, 11), (2, 5, 4), (1, 2, 6)]):
        ids = torch.randint(1, vocab, (batch, length), generator=seeded(seed))
        for row in range(1, batch):
            ids[row, length - 1 - row :] = PAD  # padding comes last
        logits = 2 * normal(batch, length, vocab, seed=seed)
        case = f"batch {batch}, length {length}, {vocab} tokens"
        with errors_mean("the shapes do not fit: {error}"):
            found = need_number(function(logits, ids))
        mistakes = _loss_mistakes(logits, ids)
        compare(found, _loss(logits, ids).item(), mistakes, case)
    need_gradient(function, _loss, logits, ids, first=1)


def _f1(table: Tensor) -> Tensor:
    hits = table.diagonal().double()
    return 2 * hits / (table.sum(0) + table.sum(1))


@exercise
def check_label_f1(function: Answer) -> None:
    """`my_f1(table)`: the F1 of each label; rows are the right labels."""
    tables = [
        torch.tensor([[6, 3], [1, 10]]),
        torch.tensor([[50, 4, 1], [9, 20, 2], [3, 5, 8]]),
        torch.tensor([[0, 2, 1], [4, 7, 0], [0, 3, 5]]),
    ]
    for table in tables:
        hits = table.diagonal().double()
        precision, recall = hits / table.sum(0), hits / table.sum(1)
        right, n = _f1(table), table.size(0)
        answer = function(table)
        if isinstance(answer, list | tuple):
            answer = torch.tensor([need_number(x) for x in answer])
        need(
            not (isinstance(answer, Tensor) and answer.dim() == 0),
            "one number for each label, not their mean",
        )
        found = need_tensor(answer, (n,))
        if not found.isfinite().all():
            zero = "a label without hits has F1 0, not 0/0: 2 hits / (row + column)"
            need(False, zero)
        wrong = [
            (precision, "that is precision alone: hits / its column"),
            (recall, "that is recall alone: hits / its row"),
            ((precision + recall) / 2, "the harmonic mean, not the usual one"),
            ((precision * recall).sqrt(), "the harmonic mean, not the geometric one"),
            (right / 2, "a factor of 2 is missing: 2 P R / (P + R)"),
            (precision * recall, "divide by P + R, and times 2"),
            (hits.sum() / table.sum() * torch.ones(n), "that is accuracy"),
            (hits / table.sum(), "divide by row and column of the label, not by all"),
            (
                hits / (table.sum(0) + table.sum(1) - hits),
                "hits count in the row and in the column: this is the Jaccard index",
            ),
        ]
        compare(found.double(), right, wrong, f"for a table of {n} labels")


class _Machine:
    """Stands in for a model: gives the next state, if it is asked as in training."""

    def __init__(self, rule: Rule, question: list[int], start: int):
        self.rule, self.question, self.start = rule, question, start

    def __call__(self, ids: Any) -> int:
        """The state after the last symbol."""
        read, n = [int(i) for i in ids], len(self.question)
        first = f"the start state comes first, here {self.start}"
        need(read[:1] == [self.start], first)
        need(len(read) <= 2 * n, "it writes on: one state for each symbol")
        turns = "ask after a symbol: state, symbol, state, symbol, and so on"
        need(len(read) % 2 == 0, turns)
        order = "the symbols are read one by one, each after the state before it"
        need(read[1::2] == self.question[: len(read) // 2], order)
        return self.rule(read[-2], read[-1])


@exercise
def check_writing(function: Answer) -> None:
    """`my_scratchpad(next_token, question, start)`: the states that a model writes."""
    rules: list[tuple[Rule, list[int], int]] = [
        (lambda state, bit: state ^ bit, [1, 0, 1, 1], 0),
        (lambda state, digit: (state + digit) % 5, [3, 4, 0, 2, 2, 1], 4),
        (lambda state, digit: (2 * state + digit) % 7, [6], 3),
    ]
    for rule, question, start in rules:
        answer = function.let(_Machine(rule, question, start), list(question), start)
        need(answer is not None and answer is not ..., "not done yet")
        right = list(accumulate(question, rule, initial=start))[1:]
        all_of_them = "return a list of all states, not the last one alone"
        listed = isinstance(answer, list | tuple) or (
            isinstance(answer, Tensor) and answer.dim() == 1
        )
        need(listed, all_of_them)
        states = [int(need_number(x)) for x in answer]
        alone = "return the new states alone, without start and symbols"
        need(len(states) <= len(right), alone)
        stale = "the state that it writes must stand before the next symbol"
        stuck = [rule(start, symbol) for symbol in question]
        compare(states, right, [(stuck, stale)], f"for the question {question}")
