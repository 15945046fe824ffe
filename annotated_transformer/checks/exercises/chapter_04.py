"""Checks of chapter 04, Multi-head attention: one for each exercise."""

import math
from typing import Any

import torch
import torch.nn.functional as F

from annotated_transformer.attention import attention
from annotated_transformer.checks.common import Answer, exercise, seeded
from annotated_transformer.checks.common import close as same

__all__ = ["check_einsum", "check_grouped", "check_job", "check_split_test"]


def right_split(x: Any, heads: Any) -> Any:
    """The heads of x, in order."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def wrong_split(x: Any, heads: Any) -> Any:
    """A view without the transpose: the shape is right, the numbers are not."""
    return x.reshape(x.size(0), heads, x.size(1), -1)  # view does the same


def by_chunks(x: Any, n_heads: Any) -> Any:
    """The heads of x, in order, in another way."""
    return torch.stack(x.chunk(n_heads, -1), 1)


WRONG_SPLITS = {
    "view without the transpose": wrong_split,
    "no transpose: (batch, length, heads, d_k)": lambda x, h: x.unflatten(-1, (h, -1)),
    "every h-th number instead of a block": lambda x, h: x.unflatten(
        -1, (-1, h)
    ).permute(0, 3, 1, 2),
    "the length cut instead of the width": lambda x, h: x.unflatten(1, (h, -1)),
    "heads in reverse order": lambda x, h: right_split(x, h).flip(1),
    "positions in reverse order": lambda x, h: right_split(x, h).flip(2),
    "each sentence gets another's heads": lambda x, h: right_split(x, h).roll(1, 0),
    "every head a copy of the first": lambda x, h: right_split(x, h)[:, [0] * h],
}


def passes(test: Any, split: Any) -> Any:
    """Does a test let a split through, without an error?"""
    try:
        return test(split)
    except Exception:
        return False


@exercise
def check_split_test(test: Answer) -> str:
    """`my_split_test(split)`: is this way to cut heads right?"""
    try:
        answer = test.let(right_split)
        answer = answer if answer is None else bool(answer)
    except Exception as error:
        return f"your test fails on the right function: {error!r}"
    if answer is None:
        return "not done yet, or no return: end with True or False"
    if not answer:
        return "your test rejects the right function of section 3"
    if not passes(test, by_chunks):
        return "your test rejects a right function: chunks of the width, stacked"
    slipped = [name for name, wrong in WRONG_SPLITS.items() if passes(test, wrong)]
    return "slipped through: " + "; ".join(slipped) if slipped else "correct"


@exercise
def check_einsum(function: Answer) -> str:
    """`my_einsum_attention(x, w_q, w_k, w_v, w_o)`: all heads by einsum."""
    r = seeded(5)
    x = torch.randn(2, 5, 11, generator=r)
    w_q, w_k = torch.randn(2, 3, 11, 4, generator=r)
    w_v = torch.randn(3, 11, 7, generator=r)
    w_o = torch.randn(3, 7, 11, generator=r)

    def version(
        divisor: Any = 2.0, axis: Any = -1, w_k: Any = w_k, total: Any = torch.sum
    ) -> Any:
        query, key, value = (x[:, None] @ w for w in (w_q, w_k, w_v))
        weights = (query @ key.mT / divisor).softmax(axis)
        return total(weights @ value @ w_o, 1)

    answer = function(x, w_q, w_k, w_v, w_o)
    if isinstance(answer, tuple):
        return "return the output only, not the weights"
    if answer.shape == (2, 3, 5, 11):
        return (
            "one output for each head: is `h` still after the arrow in the last line?"
        )
    if answer.shape != (2, 5, 11):
        return (
            f"the shape should be that of x, not {tuple(answer.shape)}: where is w_o?"
        )
    if same(answer, version(total=torch.mean)):
        return "the heads are averaged: the output is their sum"
    for divisor, mistake in (
        (1.0, "there is no scale: did you forget to divide by the root of d_k?"),
        (4.0, "did you divide by d_k instead of its root?"),
        (math.sqrt(11), "divided by the root of d_model, not of d_k"),
        (math.sqrt(7), "divided by the root of d_v, not of d_k"),
    ):
        if same(answer, version(divisor)):
            return mistake
    if same(answer, version(axis=-2)):
        return "is your softmax over the keys, the last axis?"
    if same(answer, version(axis=1)):
        return "the softmax runs over the heads: each head shares out 1 by itself"
    if same(answer, version(w_k=w_q)):
        return "keys made by w_q: queries and keys have matrices of their own"
    return (
        "correct" if same(answer, version()) else "the numbers are not those of a loop"
    )


@exercise
def check_grouped(function: Answer) -> str:
    """`my_grouped_attention(query, key, value)`: heads that share their keys."""
    r = seeded(6)
    query = torch.randn(2, 6, 5, 4, generator=r)
    key, value = torch.randn(2, 2, 2, 7, 4, generator=r)

    def version(
        key: Any, value: Any, groups: Any = (0, 0, 0, 1, 1, 1), query: Any = query
    ) -> Any:
        groups = list(groups)
        return attention(query, key[:, groups], value[:, groups])[0]

    answer = function(query, key, value)
    if isinstance(answer, tuple):
        return "return the output only, not the weights"
    if answer.shape != (2, 6, 5, 4):
        return f"the shape should be that of the query, {(2, 6, 5, 4)}"
    if same(answer, version(key, value, (0, 1, 0, 1, 0, 1))):
        return "neighbors should share: repeat_interleave, not repeat"
    if same(answer, version(key, value, [0] * 6)):
        return "all heads use group 0"
    if same(answer, version(key, value, (1, 1, 1, 0, 0, 0))):
        return "the groups have changed places"
    means = key.mean(1, keepdim=True), value.mean(1, keepdim=True)
    if same(answer, version(*means, [0] * 6)):
        return "the groups are averaged: each head uses its own group as it is"
    if same(answer, version(key, value, query=2 * query)):
        return "there is no scale: did you forget to divide by the root of d_k?"
    if not same(answer, version(key, value)):
        return "the numbers are not those of three heads a group"
    for groups in (1, 3, 6):
        key, value = torch.randn(2, 2, groups, 7, 4, generator=r)
        expected = F.scaled_dot_product_attention(query, key, value, enable_gqa=True)
        try:
            answer = function(query, key, value)
        except (RuntimeError, IndexError):
            answer = torch.empty(0)
        if not same(answer, expected):
            return f"{groups} groups, and wrong: is their number read from the key?"
    return "correct"


JOBS = ["previous", "next", "itself", "first", "spread"]


def job_map(job: Any, n: Any, seed: Any) -> Any:
    """A map of a head that has this job, with some noise."""
    query, key = torch.arange(n)[:, None], torch.arange(n)
    wanted = {
        "previous": key == query - 1,
        "next": key == query + 1,
        "itself": key == query,
        "first": (key == 0).expand(n, n),
        "spread": torch.zeros(n, n).bool(),
    }[job]
    return (5.0 * wanted + 0.5 * torch.randn(n, n, generator=seeded(seed))).softmax(-1)


@exercise
def check_job(function: Answer) -> str:
    """`my_job(weights)`: the job of a head, as a word."""
    wrong = []
    for job in JOBS:
        for n in (4, 6, 9, 12):
            for seed in range(5):
                answer = function(job_map(job, n, seed))
                if answer is None:
                    return "not done yet"
                if answer not in JOBS:
                    return f"return one of the words {JOBS}, not {answer!r}"
                if answer != job:
                    wrong.append((job, answer, n))
    if not wrong:
        return "correct"
    told = {(job, answer) for job, answer, _ in wrong}
    if len({answer for _, answer, _ in wrong}) == 1 and len(wrong) == 80:
        return f"your answer is always {wrong[0][1]!r}"
    if {("previous", "next"), ("next", "previous")} <= told:
        return "previous and next have changed places: rows ask, columns are looked at"
    if ("spread" in {job for job, _ in told}) and len({job for job, _ in told}) == 1:
        return "a spread head was given a job: how much weight is more than by chance?"
    if told == {("itself", "spread")} or told == {("first", "spread")}:
        return f"one job is never found: {wrong[0][0]!r}"
    if {("first", "previous")} & told or {("previous", "first")} & told:
        return (
            "first and previous are the same for the second word only: use more words"
        )
    if len({n for *_, n in wrong}) < 4:
        return f"wrong for sentences of {sorted({n for *_, n in wrong})} words only"
    job, answer, n = wrong[0]
    return f"a head with the job {job!r} was called {answer!r} ({n} words)"
