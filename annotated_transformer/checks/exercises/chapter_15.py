"""Checks of chapter 15, Decoding: one for each exercise."""

import math
from typing import Any

import torch

from annotated_transformer.attention import attention
from annotated_transformer.checks.common import Answer, exercise, seeded
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


def spell(ids: Any) -> Any:
    """Toy ids as letters; the end is a period."""
    return "".join("ab."[i] for i in ids)


def best_options(ask: Any, beam: Any, size: Any) -> Any:
    """The best ways to go on from each beginning."""
    options = []
    for (score, ids), row in zip(beam, ask([ids for _, ids in beam]), strict=True):
        top = row.topk(min(size, len(row)))
        for value, token in zip(top.values.tolist(), top.indices.tolist(), strict=True):
            options.append((score + value, [*ids, token]))
    return sorted(options, reverse=True)[:size]


def is_over(ids: Any, limit: Any) -> Any:
    """Has it ended, or no room left?"""
    return ids[-1] == EOS or len(ids) == limit


def simple_beam(ask: Any, limit: Any, size: Any) -> Any:
    """All that ended, the likeliest first."""
    beam: list = [(0.0, [])]
    ended: list = []
    while beam:
        kept = best_options(ask, beam, size)
        ended += [(score, ids) for score, ids in kept if is_over(ids, limit)]
        beam = [(score, ids) for score, ids in kept if not is_over(ids, limit)]
    return sorted(ended, reverse=True)


def check_table(table: Any) -> str:
    """`my_table()`: probabilities for which only a beam of three finds the best."""
    if table is None:
        return "not done yet"
    if set(table) != set(TABLE):
        return f"the beginnings should be {list(TABLE)}"
    for beginning, row in table.items():
        if len(row) != 3 or min(row) < 0:
            return f"{beginning!r}: three probabilities, none below 0"
        if abs(sum(row) - 1) > 1e-6:
            return f"{beginning!r}: the row adds up to {sum(row):.3f}, not to 1"

    def ask(beginnings: Any) -> Any:
        return torch.tensor([table[spell(ids)] for ids in beginnings]).log()

    best, second = simple_beam(ask, 3, 12)[:2]
    if math.isclose(best[0], second[0], abs_tol=1e-6):
        return f"{spell(best[1])} and {spell(second[1])} are equally likely"
    one, two, three = (simple_beam(ask, 3, size)[0][1] for size in (1, 2, 3))
    if one == best[1]:
        return f"greedy finds {spell(best[1])}: lower its first or second step"
    if two == best[1]:
        return f"a beam of 2 finds {spell(best[1])}: it must be third after two tokens"
    if three != best[1]:
        return f"a beam of 3 misses {spell(best[1])}, too: it is too far down"
    return "correct"


@exercise
def check_step(step: Answer) -> str:
    """`my_step(x, w_query, w_key, w_value, cache)`: attention with a cache."""
    g = seeded(7)
    x, weights = torch.randn(5, 9, generator=g), torch.randn(3, 9, 4, generator=g)
    q, k, v = (x @ w for w in weights)

    def version(q: Any, k: Any, v: Any) -> Any:
        return attention(q, k, v, causal_mask(5))[0]

    def run() -> Any:
        cache: dict[str, list] = {"keys": [], "values": []}
        return [step.let(new, *weights, cache) for new in x]

    try:
        rows = run()
        again = run()
    except (IndexError, RuntimeError, TypeError, ValueError) as error:
        if "empty" in str(error):
            return "it fails on an empty cache: add the new key and value first"
        return f"it fails: {error}"
    if rows[0] is None:
        return "not done yet"
    if rows[0].shape != (4,):
        return f"the output should have shape (4,), not {tuple(rows[0].shape)}"
    rows, again = torch.stack(rows), torch.stack(again)
    if not torch.allclose(rows, again):
        return "a second sentence sees the first: keep everything in `cache`"
    named = {
        "it looks at the new place only: does the cache grow?": v,
        "there is no scale: divide by the root of d_k": version(2 * q, k, v),
        "divide by the root of d_k, not of d_model": version(2 / 3 * q, k, v),
        "keys and values have changed places": version(q, v, k),
        "you keep queries instead of keys": version(q, q, v),
        "the query is that of the first place": version(q[:1].expand(5, -1), k, v),
    }
    for mistake, wrong in named.items():
        if torch.allclose(rows, wrong, atol=1e-5):
            return mistake
    right = torch.allclose(rows, version(q, k, v), atol=1e-5)
    return "correct" if right else "other numbers than Eq. 1 with a causal mask"


@exercise
def check_vote(vote: Answer) -> str:
    """`my_vote(candidates, similarity)`: the candidate most like all others."""

    def recall(hypothesis: Any, reference: Any) -> Any:
        words = reference.split()
        return sum(word in hypothesis.split() for word in words) / len(words)

    def precision(hypothesis: Any, reference: Any) -> Any:
        return recall(reference, hypothesis)

    near = ["a b c", "a b d", "a b e", "x y z", "x y z"]
    answer = vote(near, recall)
    if isinstance(answer, int):
        return "return the sentence, not its number"
    if answer == "x y z":
        return "that is the most frequent, or the least alike: take the most alike"
    if answer not in near[:3]:
        return "the winner must be one of the candidates"
    long_and_short = ["a b c d e f", "a", "a b", "b"]
    if vote(long_and_short, recall) == "a" and vote(long_and_short, precision) != "a":
        return "similarity(hypothesis, reference): the candidate comes first"
    if vote(long_and_short, recall) != "a b c d e f":
        return "a sentence that holds all others has the best recall: it should win"
    twice = ["a b", "c d", "c d", "c d", "a b e", "a b f"]
    if vote(twice, recall).startswith("a b"):
        return "a sentence drawn three times has three votes: don't remove doubles"
    return "correct" if vote(twice, recall) == "c d" else "other votes than ours"
