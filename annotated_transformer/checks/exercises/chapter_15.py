"""Checks of chapter 15, Decoding: one for each exercise."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any

import torch
from torch import Tensor

from annotated_transformer.attention import attention
from annotated_transformer.checks.common import (
    Answer,
    Mistake,
    compare,
    errors_mean,
    exercise,
    need,
    need_tensor,
    normal,
    same,
    seeded,
    verdict,
)
from annotated_transformer.masks import causal_mask
from annotated_transformer.special import EOS

__all__ = ["check_step", "check_table", "check_vote"]

TABLE = {  # beginning: probabilities of a, b and the end
    "": (0.50, 0.40, 0.10),
    "a": (0.40, 0.35, 0.25),
    "b": (0.90, 0.05, 0.05),
    "aa": (0.10, 0.10, 0.80),
    "ab": (0.10, 0.10, 0.80),
    "ba": (0.10, 0.10, 0.80),
    "bb": (0.10, 0.10, 0.80),
}

Ids = list[int]
Beam = list[tuple[float, Ids]]
Ask = Callable[[list[Ids]], Tensor]


def spell(ids: Ids) -> str:
    """Toy ids as letters; the end is a period."""
    return "".join("ab."[i] for i in ids)


def best_options(ask: Ask, beam: Beam, size: int) -> Beam:
    """The best ways to go on from each beginning."""
    options = []
    for (score, ids), row in zip(beam, ask([ids for _, ids in beam]), strict=True):
        top = row.topk(min(size, len(row)))
        for value, token in zip(top.values.tolist(), top.indices.tolist(), strict=True):
            options.append((score + value, [*ids, token]))
    return sorted(options, reverse=True)[:size]


def is_over(ids: Ids, limit: int) -> bool:
    """Has it ended, or no room left?"""
    return ids[-1] == EOS or len(ids) == limit


def simple_beam(ask: Ask, limit: int, size: int) -> Beam:
    """All that ended, the likeliest first."""
    beam, ended = [(0.0, [])], []  # type: ignore[var-annotated]
    while beam:
        kept = best_options(ask, beam, size)
        ended += [(score, ids) for score, ids in kept if is_over(ids, limit)]
        beam = [(score, ids) for score, ids in kept if not is_over(ids, limit)]
    return sorted(ended, reverse=True)


def check_table(table: Any) -> str:
    """`my_table()`: probabilities for which only a beam of three finds the best."""
    return verdict(table if callable(table) else lambda: table, whole=_fooled)


def _fooled(answer: Answer, _: int) -> None:
    table = _need_rows(answer())

    def asking(seed: int) -> Ask:
        noise = 1e-7 * normal(len(TABLE), 3, seed=seed).double()
        known = dict(zip(TABLE, noise, strict=True))

        def ask(beginnings: list[Ids]) -> Tensor:
            names = [spell(ids) for ids in beginnings]
            return torch.stack([table[name].log() + known[name] for name in names])

        return ask

    def found(size: int, seed: int = 0) -> str:
        return spell(simple_beam(asking(seed), 3, size)[0][1])

    first, second = simple_beam(asking(0), 3, 12)[:2]
    best = spell(first[1])
    tied = f"{best} and {spell(second[1])} are equally likely"
    need(not math.isclose(first[0], second[0], abs_tol=1e-5), tied)
    greedy = f"greedy finds {best}: lower its first or second step"
    need(found(1) != best, greedy)
    two = f"a beam of 2 finds {best}: it must be third after two tokens"
    need(found(2) != best, two)
    far = f"a beam of 3 misses {best}, too: it is too far down"
    need(found(3) == best, far)
    for size in (1, 2, 3):
        luck = f"a beam of {size} finds {best} or not by luck: two options are equal"
        need(all((found(size, n) == best) == (size == 3) for n in range(20)), luck)


def _need_rows(table: Any) -> dict[str, Tensor]:
    """The rows of a table, once they are probabilities of the right beginnings."""
    need(isinstance(table, Mapping), "return a dict like TABLE")
    missing, more = set(TABLE) - set(table), set(table) - set(TABLE)
    need(
        not missing, f"beginnings are missing: {', '.join(map(repr, sorted(missing)))}"
    )
    need(not more, f"the beginnings should be {list(TABLE)}, no others")
    rows = {}
    for name in TABLE:
        numbers = f"{name!r}: three numbers, for a, b and the end"
        with errors_mean(numbers, TypeError, ValueError, RuntimeError):
            row = torch.as_tensor(table[name], dtype=torch.float64)
        need(row.shape == (3,), numbers)
        total = row.sum().item()
        need(row.min() >= 0, f"{name!r}: three probabilities, none below 0")
        need(abs(total - 100) > 1e-3, f"{name!r}: as shares of 1, not in percent")
        need(
            same(total, 1.0, 1e-6),
            f"{name!r}: the row adds up to {total:.3f}, not to 1",
        )
        rows[name] = row
    return rows


def _steps(step: Answer, x: Tensor, weights: Sequence[Tensor]) -> Iterator[Tensor]:
    """The outputs at one position after the other, with one cache."""
    cache: dict[str, Any] = {"keys": [], "values": []}

    def once(x: Tensor, w_query: Tensor, w_key: Tensor, w_value: Tensor) -> Any:
        return step.let(x, w_query, w_key, w_value, cache)

    ask = Answer(once)
    for new in x:
        yield need_tensor(ask(new, *weights), (weights[2].size(1),))
    for part in cache.values():
        grown = f"{len(part)} keys or values in the cache after {len(x)} positions"
        need(len(part) <= len(x), grown)


def _causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return attention(q, k, v, causal_mask(len(q)))[0]


@exercise
def check_step(step: Answer) -> None:
    """`my_step(x, w_query, w_key, w_value, cache)`: attention with a cache."""
    x, weights = normal(5, 9, seed=7), [normal(9, 4, seed=i) / 3 for i in range(3)]
    q, k, v = (x @ w for w in weights)
    add = "it fails on an empty cache: add the new key and value first ({error})"
    with errors_mean(add, IndexError, RuntimeError, ValueError):
        next(_steps(step, x, weights))
    rows, again = (torch.stack(list(_steps(step, x, weights))) for _ in range(2))
    shared = "a second sentence sees the first: keep everything in `cache`"
    need(same(rows, again), shared)
    compare(rows, _causal(q, k, v), _wrong_steps(q, k, v), "Eq. 1 with a causal mask")
    sentences = [_steps(step, part, weights) for part in (x, x.flip(0))]
    in_turn = [torch.stack(pair) for pair in zip(*sentences, strict=True)]
    back = _causal(*(x.flip(0) @ w for w in weights))
    need(same(torch.stack(in_turn, 1), torch.stack([rows, back])), shared)
    for n, d_model, d_k, d_v in ((1, 3, 1, 2), (6, 5, 16, 3), (40, 32, 7, 64)):
        x = 3 * normal(n, d_model)
        matrices = [normal(d_model, d, seed=i) for i, d in enumerate((d_k, d_k, d_v))]
        matrices = [matrix / math.sqrt(d_model) for matrix in matrices]
        case = f"{n} positions, d_model = {d_model}, d_k = {d_k}, d_v = {d_v}"
        with errors_mean(f"{case}: {{error}}", Exception):
            rows = torch.stack(list(_steps(step, x, matrices)))
        compare(rows, _causal(*(x @ w for w in matrices)), hint=case)


def _wrong_steps(q: Tensor, k: Tensor, v: Tensor) -> list[tuple[Tensor, str]]:
    """For d_k = 4 and d_model = 9."""
    before = [attention(q[i : i + 1], k[:i], v[:i])[0][0] for i in range(1, len(q))]
    no_softmax = (q @ k.mT / 2).tril() @ v
    itself = "a position looks at itself, too: add its key first"
    return [
        (v, "it looks at the new place only: does the cache grow?"),
        (_causal(2 * q, k, v), "there is no scale: divide by the root of d_k"),
        (_causal(q / 2, k, v), "divide by the root of d_k, not by d_k"),
        (_causal(2 / 3 * q, k, v), "divide by the root of d_k, not of d_model"),
        (_causal(4 * q, k, v), "divide by the root of d_k: don't multiply"),
        (_causal(q, v, k), "keys and values have changed places"),
        (_causal(q, k, k), "the keys are mixed: where are the values?"),
        (_causal(q, q, v), "you keep queries instead of keys"),
        (_causal(k, q, v), "queries and keys have changed places"),
        (_causal(q[:1].expand_as(q), k, v), "the query is that of the first position"),
        (_causal(0 * q, k, v), "all weigh the same: softmax over the positions"),
        (no_softmax, "where is the softmax?"),
        (torch.stack([v[0], *before]), itself),
    ]


Similarity = Callable[[str, str], float]


def _recall(hypothesis: str, reference: str) -> float:
    words = reference.split()
    return sum(word in hypothesis.split() for word in words) / len(words)


def _precision(hypothesis: str, reference: str) -> float:
    return _recall(reference, hypothesis)


def _unlike(hypothesis: str, reference: str) -> float:
    """A similarity that is never above 0: minus the words that one lacks."""
    ours, theirs = Counter(hypothesis.split()), Counter(reference.split())
    return -float((ours - theirs).total() + 3 * (theirs - ours).total())


Score = Callable[[str, list[str], Similarity], float]


def _votes(one: str, candidates: list[str], similarity: Similarity) -> float:
    return sum(similarity(one, other) for other in candidates)


def _turned(one: str, candidates: list[str], similarity: Similarity) -> float:
    return sum(similarity(other, one) for other in candidates)


def _others(one: str, candidates: list[str], similarity: Similarity) -> list[float]:
    """The votes of all that are not the same sentence."""
    return [similarity(one, x) for x in candidates if x != one] or [0.0]


DOUBLES = "a sentence drawn three times has three votes: don't remove doubles"
WRONG_SCORES: list[tuple[Score, str]] = [
    (_turned, "similarity(hypothesis, reference): the candidate comes first"),
    (lambda one, c, s: _votes(one, list(set(c)), s), DOUBLES),
    (lambda one, c, s: sum(_others(one, c, s)), DOUBLES),
    (lambda *poll: _votes(*poll) + _turned(*poll), "one direction only: add no other"),
    (lambda *poll: -_votes(*poll), "that is the least alike: take the most alike"),
    (lambda *poll: max(_others(*poll)), "add up all votes, not only the best of them"),
    (lambda one, c, s: min(s(one, x) for x in c), "add up all votes"),
    (lambda one, c, s: median(s(one, x) for x in c), "add up all votes: no median"),
    (
        lambda *poll: max(0.0, _votes(*poll)),
        "votes may all be below 0: where to start?",
    ),
    (lambda one, c, s: c.count(one), "that is the most frequent one"),
    (lambda one, c, s: len(one), "that is the longest one"),
    (lambda one, c, s: -len(one), "that is the shortest one"),
    (lambda one, c, s: -c.index(one), "that is always the first one"),
]


@exercise
def check_vote(vote: Answer) -> None:
    """`my_vote(candidates, similarity)`: the candidate most like all others."""
    near = ["a b c", "a b d", "a b e", "x y z", "x y z"]
    answer = vote(near, _recall)
    need(not isinstance(answer, int), "return the sentence, not its number")
    need(isinstance(answer, str), f"return a sentence, not a {type(answer).__name__}")
    most = "that is the most frequent, or the least alike: take the most alike"
    need(answer != "x y z", most)
    need(answer in near[:3], "the winner must be one of the candidates")
    polls = [(c, s) for s in (_recall, _precision, _unlike) for c in _samples()]
    answers = [vote(*poll) for poll in polls]
    for answer, (candidates, _) in zip(answers, polls, strict=True):
        need(answer in candidates, "the winner must be one of the candidates")

    def holds(score: Score) -> list[bool]:
        """Whether each answer has the best score."""
        return [
            score(answer, *poll) >= max(score(one, *poll) for one in poll[0]) - 1e-9
            for answer, poll in zip(answers, polls, strict=True)
        ]

    right = holds(_votes)
    if not all(right):
        for wrong, message in WRONG_SCORES:
            need(not all(holds(wrong)), message)
        candidates, similarity = polls[right.index(False)]
        name, shown = similarity.__name__.strip("_"), ", ".join(candidates[:6])
        wins = f"{answers[right.index(False)]!r} has not the most votes"
        raise Mistake(f"{wins} of {shown} (the similarity is {name})")


def _samples() -> Iterator[list[str]]:
    """Candidates: those that tell mistakes apart, then drawn ones."""
    yield ["a b c d e f", "a", "a b", "b"]
    yield ["a b", "c d", "c d", "c d", "a b e", "a b f"]
    yield ["a"]
    yield ["b a", "b a"]
    g = seeded(0)
    for n in (3, 4, 5, 8, 8, 8, 40):
        words = [torch.randint(5, (5,), generator=g).tolist() for _ in range(n)]
        yield [" ".join("abcde"[i] for i in row[: 1 + row[-1]]) for row in words]
