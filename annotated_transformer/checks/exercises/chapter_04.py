"""Checks of chapter 04, Multi-head attention: one for each exercise."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from annotated_transformer.attention import attention, fused_attention
from annotated_transformer.checks.common import (
    Answer,
    Mistake,
    compare,
    errors_mean,
    exercise,
    need,
    need_gradient,
    need_tensor,
    need_truth,
    normal,
    shown,
)

__all__ = [
    "check_einsum",
    "check_grouped",
    "check_job",
    "check_multi_head",
    "check_split_test",
]

Split = Callable[[Tensor, int], Tensor]


def right_split(x: Tensor, heads: int) -> Tensor:
    """The heads of x, in order."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def wrong_split(x: Tensor, heads: int) -> Tensor:
    """A view without the transpose: the shape is right, the numbers are not."""
    return x.reshape(x.size(0), heads, x.size(1), -1)  # view does the same


def _by_chunks(x: Tensor, n_heads: int) -> Tensor:
    return torch.stack(x.chunk(n_heads, -1), 1)


def _every_hth(x: Tensor, n_heads: int) -> Tensor:
    return x.unflatten(-1, (-1, n_heads)).permute(0, 3, 1, 2)


WRONG_SPLITS: dict[str, Split] = {
    "view without the transpose": wrong_split,
    "no transpose: (batch, length, heads, d_k)": lambda x, h: x.unflatten(-1, (h, -1)),
    "every h-th number instead of a block": _every_hth,
    "the length cut instead of the width": lambda x, h: x.unflatten(1, (h, -1)),
    "heads in reverse order": lambda x, h: right_split(x, h).flip(1),
    "positions in reverse order": lambda x, h: right_split(x, h).flip(2),
    "each sentence gets another's heads": lambda x, h: right_split(x, h).roll(1, 0),
    "every head a copy of the first": lambda x, h: right_split(x, h)[:, [0] * h],
}


@exercise
def check_split_test(test: Answer) -> None:
    """`my_split_test(split)`: is this way to cut heads right?"""

    def passes(split: Split) -> bool:
        try:
            answer = test.let(split)
        except Mistake:
            raise
        except Exception:
            return False
        need(answer is not None, "it returns None for a wrong split: return False")
        return need_truth(answer)

    with errors_mean("your test fails on the right function: {error!r}", Exception):
        unfinished = test.let(right_split) is None
    need(not unfinished, "not done yet, or no return: end with True or False")
    need(passes(right_split), "your test rejects the right function of section 3")
    chunks = "your test rejects a right function: chunks of the width, stacked"
    need(passes(_by_chunks), chunks)
    slipped = [name for name, wrong in WRONG_SPLITS.items() if passes(wrong)]
    everything = "your test lets every split through: which number should be where?"
    need(len(slipped) < len(WRONG_SPLITS), everything)
    need(not slipped, "slipped through: " + "; ".join(slipped))


def of_heads(
    parts: Sequence[Tensor],
    weights: Sequence[Tensor],
    n_heads: int,
    split: Split = right_split,
) -> Tensor:
    """What each head finds, (batch, heads, query, d_v), for queries, keys, values."""
    products = (x @ w for x, w in zip(parts, weights, strict=True))
    return fused_attention(*(split(product, n_heads) for product in products))


def in_parallel(
    query: Tensor, key: Tensor, value: Tensor, *weights_and_heads: Any
) -> Tensor:
    """MultiHead(Q, K, V) of §3.2.2."""
    *weights, w_o, n_heads = weights_and_heads
    heads = of_heads((query, key, value), weights, n_heads)
    return heads.transpose(1, 2).flatten(-2) @ w_o


@exercise
def check_multi_head(function: Answer) -> None:
    """`my_multi_head(query, key, value, w_q, w_k, w_v, w_o, n_heads)`: §3.2.2."""
    query = normal(2, 5, 12)
    key, value = normal(2, 7, 12, seed=1), normal(2, 7, 12, seed=2)
    weights = [normal(12, 12, seed=i) / 4 for i in range(3, 7)]
    case: list[Any] = [query, key, value, *weights, 3]
    answer, right = function(*case), in_parallel(*case)
    shape = tuple(answer.shape) if isinstance(answer, Tensor) else ()
    apart = "the heads are not joined: move them behind the positions, then flatten"
    need(shape not in ((2, 3, 5, 4), (2, 5, 3, 4)), apart)
    need_tensor(answer, (2, 5, 12))
    compare(answer, right, _multi_head_mistakes(*case))
    for length, heads in ((40, 2), (1, 6), (9, 1)):
        case = [normal(2, length, 12), key, value, *weights, heads]
        hint = f"{heads} heads, {length} queries: is anything fixed?"
        compare(function(*case), in_parallel(*case), hint=hint)
    case[-1] = 3
    need_gradient(function, in_parallel, *case)


def _multi_head_mistakes(
    query: Tensor, key: Tensor, value: Tensor, *others: Any
) -> list[tuple[Tensor, str]]:
    *weights, w_o, n_heads = others
    parts = query, key, value
    heads = of_heads(parts, weights, n_heads)
    unmixed = heads.transpose(1, 2).flatten(-2)
    views = of_heads(parts, weights, n_heads, wrong_split)
    turned = [w.T for w in (*weights, w_o)]

    def of(*parts: Tensor) -> Tensor:
        return in_parallel(*parts, *weights, w_o, n_heads)

    one = "one head of full width: cut the products into n_heads, then attend"
    cut = "view without the transpose: each head got whole words, not its slice"
    back = "the way back lacks its transpose: positions before heads, then flatten"
    itself = "keys and values are made from the query: use key and value"
    return [
        (in_parallel(*parts, *weights, w_o, 1), one),
        (views.reshape(unmixed.shape) @ w_o, cut),
        (views.transpose(1, 2).flatten(-2) @ w_o, cut),
        (heads.reshape(unmixed.shape) @ w_o, back),
        (unmixed, "the heads are side by side, but not mixed: where is w_o?"),
        (of(query, key, key), "the values are made from the key: use value"),
        (of(query, query, query), itself),
        (in_parallel(*parts, *turned, n_heads), "the formula has x @ w, not x @ w.T"),
    ]


def _multi_head(x: Tensor, w_q: Tensor, w_k: Tensor, *others: Tensor) -> Tensor:
    w_v, w_o = others
    query, key, value = (x[:, None] @ w for w in (w_q, w_k, w_v))
    return (fused_attention(query, key, value) @ w_o).sum(1)


@exercise
def check_einsum(function: Answer) -> None:
    """`my_einsum_attention(x, w_q, w_k, w_v, w_o)`: all heads by einsum."""
    case = [normal(2, 5, 11), *(normal(3, 11, 4, seed=i) for i in (1, 2))]
    case += [normal(3, 11, 7, seed=3), normal(3, 7, 11, seed=4)]
    answer = function(*case)
    shape = tuple(answer.shape) if isinstance(answer, Tensor) else ()
    arrow = "one output for each head: is `h` still after the arrow in the last line?"
    need(shape != (2, 3, 5, 11), arrow)
    need(shape != (2, 3, 5, 7), "the heads are not put together yet: where is w_o?")
    right = _multi_head(*case)
    compare(need_tensor(answer, (2, 5, 11)), right, _einsum_mistakes(*case))
    x, w_q, *others = case
    loud = [10 * x, w_q, *others]
    compare(function(*loud), _multi_head(*loud), hint="scores a hundred times as large")
    wide = [normal(1, 40, 64), *(normal(8, 64, 9, seed=i) / 8 for i in (1, 2))]
    wide += [normal(8, 64, 5, seed=3) / 8, normal(8, 5, 64, seed=4) / 8]
    compare(
        function(*wide), _multi_head(*wide), hint="8 heads of width 9, 40 positions"
    )
    need_gradient(function, _multi_head, *case)


def _einsum_mistakes(*case: Tensor) -> list[tuple[Tensor, str]]:
    x, w_q, w_k, w_v, w_o = case
    query, key, value = (x[:, None] @ w for w in (w_q, w_k, w_v))
    scores = query @ key.mT
    d_k, d_v, d_model = w_q.size(-1), w_v.size(-1), x.size(-1)
    scaled = scores / math.sqrt(d_k)

    def mixed(weights: Tensor) -> Tensor:
        return (weights @ value @ w_o).sum(1)

    def divided(divisor: float) -> Tensor:
        return mixed((scores / divisor).softmax(-1))

    own = "the softmax runs over the heads: the weights of each head add up to 1"
    twins = "keys made by w_q: queries and keys have matrices of their own"
    averaged = "the heads are averaged: the output is their sum"
    return [
        (mixed(scaled.softmax(-1)) / len(w_q), averaged),
        (divided(1), "there is no scale: did you forget to divide by the root of d_k?"),
        (divided(d_k), "did you divide by d_k instead of its root?"),
        (divided(math.sqrt(d_model)), "divided by the root of d_model, not of d_k"),
        (divided(math.sqrt(d_v)), "divided by the root of d_v, not of d_k"),
        (mixed(scaled.softmax(-2)), "is your softmax over the keys, the last axis?"),
        (mixed(scaled.softmax(1)), own),
        (mixed(scaled), "where is the softmax? Weights add up to 1"),
        (mixed(scaled.mT.softmax(-1)), "queries and keys have changed places"),
        (_multi_head(x, w_q, w_q, w_v, w_o), twins),
    ]


def _grouped(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Grouped attention: the keys of each group repeated for its heads."""
    members = query.size(1) // key.size(1)
    key, value = (part.repeat_interleave(members, 1) for part in (key, value))
    return fused_attention(query, key, value)


@exercise
def check_grouped(function: Answer) -> None:
    """`my_grouped_attention(query, key, value)`: heads that share their keys."""
    query = normal(2, 6, 5, 4)
    key, value = normal(2, 2, 7, 4, seed=1), normal(2, 2, 7, 4, seed=2)

    def version(groups: list[int]) -> Tensor:
        return attention(query, key[:, groups], value[:, groups])[0]

    means = (part.mean(1, keepdim=True) for part in (key, value))
    mean = "the groups are averaged: each head uses its own group as it is"
    no_scale = "there is no scale: did you forget to divide by the root of d_k?"
    compare(
        need_tensor(function(query, key, value), (2, 6, 5, 4)),
        _grouped(query, key, value),
        (
            (version([0, 1] * 3), "neighbors share: repeat_interleave, not repeat"),
            (version([0] * 6), "all heads use group 0"),
            (version([1, 1, 1, 0, 0, 0]), "the groups have changed places"),
            (_grouped(query, *means), mean),
            (_grouped(2 * query, key, value), no_scale),
        ),
        "three heads a group",
    )
    for heads, groups, d_k in ((6, 1, 4), (6, 3, 4), (6, 6, 4), (8, 4, 64), (1, 1, 9)):
        query = normal(2, heads, 5, d_k)
        key, value = (normal(2, groups, 40, d_k, seed=i) for i in (1, 2))
        hint = f"{heads} heads, groups: {groups}; is their number read from the key?"
        with errors_mean(f"{hint} {{error}}", Exception):
            answer = function(query, key, value)
        compare(answer, _grouped(query, key, value), hint=hint)
    need_gradient(function, _grouped, query, key, value)


JOBS = ["previous", "next", "itself", "first", "spread"]


def job_map(job: str, n: int, seed: int) -> Tensor:
    """A map of a head that has this job, with some noise."""
    query, key = torch.arange(n)[:, None], torch.arange(n)
    wanted = {
        "previous": key == query - 1,
        "next": key == query + 1,
        "itself": key == query,
        "first": (key == 0).expand(n, n),
        "spread": torch.zeros(n, n).bool(),
    }[job]
    return (5.0 * wanted + 0.5 * normal(n, n, seed=seed)).softmax(-1)


@exercise
def check_job(function: Answer) -> None:
    """`my_job(weights)`: the job of a head, as a word."""
    cases = [(job, n, s) for job in JOBS for n in range(4, 13) for s in range(5)]
    answers = [function(job_map(*case)) for case in cases]
    for answer in answers:
        word = isinstance(answer, str) and answer in JOBS
        need(word, f"return one of the words {JOBS}, not {shown(answer)}")
    always = len(set(answers)) == 1
    need(not always, f"your answer is always {answers[0]!r}")
    wrong = [(*case, a) for case, a in zip(cases, answers, strict=True) if a != case[0]]
    told = {(job, answer) for job, _, _, answer in wrong}
    swapped = {("previous", "next"), ("next", "previous")} <= told
    by_columns = "the map is read by columns: rows are queries, weights[query, key]"
    need(not swapped or "first" in answers, by_columns)
    sides = "previous and next have changed places: earlier keys stand left of the"
    need(not swapped, f"{sides} diagonal")
    chance = "a spread head was given a job: how much weight is more than by chance?"
    need(not told or {job for job, _ in told} != {"spread"}, chance)
    row = "'first' is never found: all look at word 0, so it is column 0 that is full"
    need("first" in answers or len({job for job, _ in told}) > 1, f"{row}, not row 0")
    for job in JOBS[:-1]:
        need(job in answers, f"one job is never found: {job!r}")
    second = "first and previous are the same for the second word only: use more words"
    need(not told & {("first", "previous"), ("previous", "first")}, second)
    lengths = sorted({n for _, n, _, _ in wrong})
    some = f"wrong for sentences of {lengths} words only"
    need(not wrong or len(lengths) > 4, some)
    for job, n, _, answer in wrong:
        raise Mistake(f"a head with the job {job!r} was called {answer!r} ({n} words)")
