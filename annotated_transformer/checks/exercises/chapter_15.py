"""Checks of chapter 15, Decoding: one for each exercise and each piece to write."""

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

__all__ = [
    "check_likeliest_path",
    "check_small_beam",
    "check_step",
    "check_table",
    "check_vote",
]

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


def toy_model(seed: int, vocab_size: int = 5) -> Ask:
    """A model of random numbers, the same ones for the same beginning."""
    slope = 0.4 * (seed % 4) - 0.6  # how gladly it ends

    def row(ids: Ids) -> Tensor:
        place = seed
        for token in ids:
            place = (place * 31 + int(token) + 1) % 1_000_003
        logits = 1.5 * normal(vocab_size, seed=place)
        logits[EOS] += slope * len(ids)
        return logits.log_softmax(-1)

    return lambda beginnings: torch.stack([row(ids) for ids in beginnings])


def path(ask: Ask, limit: int, *, choose: str = "argmax") -> Ids:
    """Greedy decoding: the likeliest token, until the end or the limit."""
    ids: Ids = []
    while not ids or not is_over(ids, limit):
        ids = [*ids, int(getattr(ask([ids])[0], choose)())]
    return ids


def _ids(found: Any) -> Ids:
    if isinstance(found, Tensor):
        found = found.tolist()
    kind = type(found).__name__
    need(isinstance(found, list | tuple), f"return a list of ids, not a {kind}")
    with errors_mean("ids are whole numbers, one list of them", Exception):
        return [int(token) for token in found]


@exercise
def check_likeliest_path(greedy: Answer) -> None:
    """`my_greedy(ask, limit)`: the ids of the likeliest path, the end included."""
    for seed in range(24):
        ask, limit = toy_model(seed), 9 - seed % 9
        found, right = _ids(greedy(ask, limit)), path(ask, limit)
        cut = f"never more than limit ({limit}) tokens, not {len(found)}"
        need(len(found) <= limit, cut)
        after = "it goes on after the end token: stop there"
        need(EOS not in found[:-1], after)
        lowest = path(ask, limit, choose="argmin")
        need(found != lowest or found == right, "that is argmin: take the likeliest")
        ended = right[-1] == EOS
        need(not ended or found != right[:-1], "the end token belongs to the output")
        one = "one token only: is the return inside the loop?"
        need(len(right) == 1 or found != right[:1], one)
        short = f"stop at the end token (id {EOS}) or at {limit} tokens, not before"
        need(found == right or found != right[: len(found)], short)
        need(
            found == right, f"with the likeliest token each time: {right}, not {found}"
        )


Habit = tuple[Callable[..., Beam], str]


def _loop(
    ask: Ask,
    limit: int,
    size: int,
    *,
    cut: bool = True,
    extend: bool = False,
    first: bool = False,
    shrink: bool = False,
) -> Beam:
    """`simple_beam`, and its known mistakes."""
    beam: Beam = [(0.0, [])]
    ended: Beam = []
    for length in range(1, limit + 1):
        room = size - len(ended) * shrink
        if not beam or room < 1:
            break
        kept = best_options(ask, beam, room)
        over = [(s, ids) for s, ids in kept if ids[-1] == EOS]
        beam = [(s, ids) for s, ids in kept if extend or ids[-1] != EOS]
        ended += over + (beam if length == limit and cut else [])
        if first and ended:
            break
    return sorted(ended, reverse=True)


HABITS: list[Habit] = [
    (lambda *case: simple_beam(*case)[:1], "return all that ended, not only the best"),
    (
        lambda *case: sorted(simple_beam(*case)),
        "the likeliest comes first: sort, largest log-probability in front",
    ),
    (lambda a, n, _: simple_beam(a, n, 1), "that is greedy: keep `size` of them"),
    (
        lambda *case: _loop(*case, cut=False),
        "those that reach the limit are over, too: keep them",
    ),
    (
        lambda *case: _loop(*case, extend=True),
        "a hypothesis that has ended can't be extended: take it out of the beam",
    ),
    (
        lambda *case: _loop(*case, first=True),
        "it stops when the first has ended: go on while the beam holds any",
    ),
    (
        lambda *case: _loop(*case, shrink=True),
        "each end makes the beam smaller: keep `size` options in every step",
    ),
]


def _alike(found: Beam, right: Beam) -> bool:
    return [ids for _, ids in found] == [ids for _, ids in right] and all(
        math.isclose(a, b, abs_tol=1e-3)
        for (a, _), (b, _) in zip(found, right, strict=True)
    )


@exercise
def check_small_beam(search: Answer) -> None:
    """`my_beam(ask, limit, size)`: (log-probability, ids) of all that ended."""
    cases = [(toy_model(n), 1 + n % 6, 1 + n % 4) for n in range(24)]
    answers = []
    for case in cases:
        found = search(*case)
        pairs = "return a list of pairs, (log-probability, ids)"
        need(isinstance(found, list | tuple), pairs)
        with errors_mean(pairs, TypeError, ValueError):
            answers.append([(float(score), list(ids)) for score, ids in found])
    right = [simple_beam(*case) for case in cases]
    if all(map(_alike, answers, right)):
        return
    for habit, message in HABITS:
        same_slip = (habit(*case) for case in cases)
        need(not all(map(_alike, answers, same_slip)), message)
    found, wanted, (_, limit, size) = next(
        row for row in zip(answers, right, cases, strict=True) if not _alike(*row[:2])
    )
    where = f"size {size}, limit {limit}"
    shown = f"{where}: {len(found)} outputs, {len(wanted)} are right"
    need(len(found) == len(wanted), shown)
    orders = [[ids for _, ids in beam] for beam in (found, wanted)]
    need(orders[0] == orders[1], f"{where}: other outputs, or another order")
    need(False, f"{where}: right outputs, other log-probabilities: add up the steps")


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


def _steps(
    step: Answer,
    x: Tensor,
    weights: Sequence[Tensor],
    later: Sequence[Tensor] | None = None,
) -> Iterator[Tensor]:
    """The outputs at one position after the other, with one cache.

    `later` are the weights from the third position on, if they change.
    """
    cache: dict[str, Any] = {"keys": [], "values": []}

    def once(x: Tensor, w_query: Tensor, w_key: Tensor, w_value: Tensor) -> Any:
        return step.let(x, w_query, w_key, w_value, cache)

    ask = Answer(once)
    for i, new in enumerate(x):
        now = later if later and i > 1 else weights
        yield need_tensor(ask(new, *now), (weights[2].size(1),))
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
    later = [w.flip(0) for w in weights]  # tells what was kept from what is redone
    mixed = [
        torch.cat([x[:2] @ w, x[2:] @ new])
        for w, new in zip(weights, later, strict=True)
    ]
    redone = "you project earlier positions again: keep their keys and values instead"
    rows_later = torch.stack(list(_steps(step, x, weights, later)))
    need(same(rows_later, _causal(*mixed)), redone)
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
