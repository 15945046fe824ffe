"""Chapter 15: right answers in several styles; wrong ones, and what must be said."""

import math
from collections import Counter
from functools import partial
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F

from annotated_transformer.checks.exercises.chapter_15 import (
    TABLE,
    best_options,
    is_over,
)
from annotated_transformer.special import EOS

FLAT = (0.34, 0.33, 0.33)
FOOLED = dict.fromkeys(TABLE, FLAT) | {
    "": (0.55, 0.44, 0.01),
    "a": (0.45, 0.45, 0.10),
    "b": (0.50, 0.25, 0.25),
    "ba": (0.01, 0.01, 0.98),
}
# After two tokens "ba" has 0.2475: as much as "ab", and a beam of 2 holds one of them.
LUCK = FOOLED | {"a": (0.46, 0.44, 0.10), "": (0.5625, 0.4275, 0.01)}
LUCK |= {"b": (0.5789473684, 0.2110526316, 0.21)}


def step(x, w_query, w_key, w_value, cache, *, scale=None, softmax=True):
    cache["keys"].append(x @ w_key)
    cache["values"].append(x @ w_value)
    keys, values = torch.stack(cache["keys"]), torch.stack(cache["values"])
    scores = keys @ (x @ w_query) * (scale or keys.size(-1) ** -0.5)
    return (scores.softmax(-1) if softmax else scores) @ values


def projects_again(x, w_query, w_key, w_value, cache):
    cache["keys"].append(x)
    rows = torch.stack(cache["keys"])
    scores = (rows @ w_key) @ (x @ w_query) / w_key.size(1) ** 0.5
    return scores.softmax(-1) @ (rows @ w_value)


def fused(x, *weights_and_cache):
    *weights, cache = weights_and_cache
    query, key, value = ((x @ w)[None] for w in weights)
    cache["keys"], cache["values"] = cache["keys"] + [key], cache["values"] + [value]
    key, value = torch.cat(cache["keys"]), torch.cat(cache["values"])
    return F.scaled_dot_product_attention(query[None], key[None], value[None])[0, 0]


def by_math(x, w_query, w_key, w_value, cache):
    cache["keys"] += [x @ w_key]
    cache["values"] += [x @ w_value]
    query = x @ w_query
    weights = [math.exp(k @ query / math.sqrt(len(k))) for k in cache["keys"]]
    parts = zip(weights, cache["values"], strict=True)
    return sum(weight / sum(weights) * value for weight, value in parts)


def scaled(scale):
    return lambda x, w_query, *rest: step(x, w_query, *rest, scale=scale(x, w_query))


ELSEWHERE = {"keys": [], "values": []}


def kept_elsewhere(*case):
    return step(*case[:-1], ELSEWHERE)


def emptied_elsewhere(*case):
    if not case[-1]["keys"]:
        case[-1]["keys"].append(0)
        ELSEWHERE.update(keys=[], values=[])
    return kept_elsewhere(*case)


def added_last(x, w_query, w_key, w_value, cache, first=True):
    if first and not cache["keys"]:
        output = x @ w_value
    else:
        keys, values = torch.stack(cache["keys"]), torch.stack(cache["values"])
        scores = keys @ (x @ w_query) / math.sqrt(keys.size(-1))
        output = scores.softmax(-1) @ values
    cache["keys"].append(x @ w_key)
    cache["values"].append(x @ w_value)
    return output


def added_twice(x, w_query, w_key, w_value, cache):
    step(x, w_query, w_key, w_value, cache)
    return step(x, w_query, w_key, w_value, cache)


def scales_the_matrix(x, w_query, *rest):
    w_query /= 2
    return step(x, 2 * w_query, *rest)


def vote(candidates, similarity):
    return max(candidates, key=lambda one: sum(similarity(one, x) for x in candidates))


def by_index(candidates, similarity):
    best, most = candidates[0], -math.inf
    for i, one in enumerate(candidates):
        others = candidates[:i] + candidates[i + 1 :]
        votes = np.mean([similarity(one, other) for other in others] or [0])
        if votes > most:
            best, most = one, votes
    return best


def by_matrix(candidates, similarity):
    table = [[similarity(one, x) for x in candidates] for one in candidates]
    return candidates[torch.tensor(table).double().sum(1).argmax()]


def above_zero(candidates, similarity):
    best, most = candidates[0], 0
    for one in candidates:
        votes = sum(similarity(one, x) for x in candidates)
        if votes > most:
            best, most = one, votes
    return best


def by(score):
    """The candidate with the best of these numbers."""
    return lambda candidates, similarity: max(
        candidates, key=lambda one: score([similarity(one, x) for x in candidates])
    )


def with_others(candidates, similarity):
    return max(
        candidates,
        key=lambda one: sum(similarity(one, x) for x in candidates if x != one),
    )


def sorts(candidates, similarity):
    candidates.sort()
    return vote(candidates, similarity)


def greedy(ask, limit):
    ids = []
    while not ids or (ids[-1] != EOS and len(ids) < limit):
        ids.append(int(ask([ids])[0].argmax()))
    return ids


def greedy_for(ask, limit):
    ids = []
    for _ in range(limit):
        row = ask([list(ids)]).squeeze(0)
        ids.append(max(range(len(row)), key=lambda i: row[i]))
        if ids[-1] == EOS:
            return ids
    return torch.tensor(ids)


def ignores_the_end(ask, limit):
    ids = []
    for _ in range(limit):
        ids.append(int(ask([ids])[0].argmax()))
    return ids


def beam(ask, limit, size):
    kept, ended = [(0.0, [])], []
    while kept:
        kept = best_options(ask, kept, size)
        ended += [one for one in kept if is_over(one[1], limit)]
        kept = [one for one in kept if not is_over(one[1], limit)]
    return sorted(ended, reverse=True)


def beam_of_tensors(ask, limit, size):
    """All options at once, as the library does it."""
    scores, beams, ended = torch.zeros(1), [[]], []
    for length in range(1, limit + 1):
        if not beams:
            break
        totals = scores[:, None] + ask(beams)
        top = totals.flatten().topk(min(size, totals.numel()))
        rows, tokens = top.indices // totals.size(1), top.indices % totals.size(1)
        made = [[*beams[r], int(t)] for r, t in zip(rows, tokens, strict=True)]
        over = [ids[-1] == EOS or length == limit for ids in made]
        pairs = list(zip(top.values, made, over, strict=True))
        ended += [(float(score), ids) for score, ids, done in pairs if done]
        beams = [ids for _, ids, done in pairs if not done]
        scores = torch.tensor([float(score) for score, _, done in pairs if not done])
    return sorted(ended, key=lambda pair: -pair[0])


def slipping(ask, limit, size, *, slip):
    kept, ended = [(0.0, [])], []
    for length in range(1, limit + 1):
        room = size - len(ended) if slip == "shrinks" else size
        if not kept or room < 1:
            break
        kept = best_options(ask, kept, room)
        ended += [one for one in kept if one[1][-1] == EOS]
        if slip != "extends":
            kept = [one for one in kept if one[1][-1] != EOS]
        if length == limit and slip != "cut":
            ended += kept
        if slip == "first" and ended:
            break
    return sorted(ended, reverse=True)


def halves(*case):
    return [(score / 2, ids) for score, ids in beam(*case)]


RIGHT = [
    ("check_likeliest_path", greedy),
    ("check_likeliest_path", greedy_for),
    ("check_small_beam", beam),
    ("check_small_beam", beam_of_tensors),
    ("check_table", FOOLED),
    ("check_table", lambda: {key: torch.tensor(FOOLED[key]) for key in FOOLED}),
    ("check_table", {key: list(row) for key, row in reversed(FOOLED.items())}),
    ("check_step", step),
    ("check_step", fused),
    ("check_step", by_math),
    ("check_vote", vote),
    ("check_vote", by_index),
    ("check_vote", by_matrix),
]
WRONG = [
    ("check_likeliest_path", lambda ask, limit: None, "not done yet"),
    ("check_likeliest_path", lambda ask, limit: greedy(ask, 99), "never more than lim"),
    ("check_likeliest_path", ignores_the_end, "it goes on after the end token"),
    (
        "check_likeliest_path",
        lambda a, n: [i for i in greedy(a, n) if i != EOS],
        "the end token belongs to the output",
    ),
    ("check_likeliest_path", lambda a, n: greedy(a, n)[:1], "inside the loop?"),
    ("check_likeliest_path", lambda a, n: greedy(a, n - 1 or 1), "not before"),
    ("check_likeliest_path", lambda a, n: greedy(lambda b: -a(b), n), "argmin"),
    ("check_likeliest_path", lambda a, n: str(greedy(a, n)), "not a str"),
    ("check_likeliest_path", lambda a, n: [greedy(a, n)], "whole numbers"),
    ("check_likeliest_path", lambda a, n: beam(a, n, 3)[0][1], "each time"),
    ("check_small_beam", lambda *case: None, "not done yet"),
    ("check_small_beam", lambda *case: beam(*case)[:1], "not only the best"),
    ("check_small_beam", lambda *case: beam(*case)[::-1], "sort, largest"),
    ("check_small_beam", lambda a, n, _: beam(a, n, 1), "that is greedy"),
    ("check_small_beam", partial(slipping, slip="cut"), "reach the limit"),
    ("check_small_beam", partial(slipping, slip="extends"), "can't be extended"),
    ("check_small_beam", partial(slipping, slip="first"), "the first has ended"),
    ("check_small_beam", partial(slipping, slip="shrinks"), "the beam smaller"),
    ("check_small_beam", lambda *case: beam(*case)[0][1], "a list of pairs"),
    ("check_small_beam", lambda *case: 7, "a list of pairs"),
    ("check_small_beam", halves, "right outputs, other log-prob"),
    ("check_small_beam", lambda a, n, k: beam(a, n, k + 1), "outputs,"),
    ("check_table", None, "not done yet"),
    ("check_table", lambda: None, "not done yet"),
    ("check_table", TABLE, "a beam of 2 finds ba."),
    ("check_table", dict.fromkeys(TABLE, (0.9, 0.05, 0.05)), "greedy finds aaa"),
    ("check_table", FOOLED | {"": (0.9, 0.09, 0.01)}, "are equally likely"),
    ("check_table", FOOLED | {"b": (0.3, 0.4, 0.3)}, "misses"),
    ("check_table", LUCK, "by luck: two options are equal"),
    ("check_table", FOOLED | {"a": (0.5, 0.5, 0.5)}, "adds up to 1.500, not to 1"),
    ("check_table", FOOLED | {"a": (1.2, -0.1, -0.1)}, "none below 0"),
    ("check_table", FOOLED | {"": (55, 44, 1)}, "not in percent"),
    ("check_table", FOOLED | {"a": (0.5, 0.5)}, "'a': three numbers"),
    ("check_table", {"": FLAT, "a": FLAT, "b": FLAT}, "beginnings are missing: 'aa'"),
    ("check_table", list(FOOLED.values()), "return a dict like TABLE"),
    ("check_step", lambda *case: None, "not done yet"),
    ("check_step", partial(step, scale=1), "there is no scale"),
    ("check_step", partial(step, softmax=False), "where is the softmax?"),
    ("check_step", scaled(lambda x, w: 1 / w.size(1)), "of d_k, not by d_k"),
    ("check_step", scaled(lambda x, w: len(x) ** -0.5), "not of d_model"),
    ("check_step", partial(step, scale=0.5), "d_k = 16"),
    ("check_step", lambda x, q, k, v, c: step(x, q, v, k, c), "changed places"),
    ("check_step", lambda x, q, k, v, c: step(x, k, q, v, c), "changed places"),
    ("check_step", lambda x, q, k, v, c: step(x, q, q, v, c), "queries instead of"),
    ("check_step", lambda x, q, k, v, c: step(x, q, k, k, c), "where are the values?"),
    (
        "check_step",
        lambda *case: step(*case[:-1], {"keys": [], "values": []}),
        "it looks at the new place only",
    ),
    ("check_step", projects_again, "you project earlier positions again"),
    ("check_step", kept_elsewhere, "a second sentence sees the first"),
    ("check_step", emptied_elsewhere, "a second sentence sees the first"),
    ("check_step", added_last, "a position looks at itself, too"),
    ("check_step", partial(added_last, first=False), "fails on an empty cache"),
    ("check_step", added_twice, "10 keys or values in the cache after 5"),
    ("check_step", scales_the_matrix, "your function changes w_query"),
    ("check_step", lambda *case: step(*case)[None], "should be (4,), not (1, 4)"),
    ("check_vote", lambda *case: None, "not done yet"),
    ("check_vote", lambda c, s: c.index(vote(c, s)), "not its number"),
    ("check_vote", lambda c, s: [vote(c, s)], "return a sentence, not a list"),
    ("check_vote", lambda c, s: vote(c, lambda a, b: s(b, a)), "candidate comes first"),
    ("check_vote", lambda c, s: vote(list(dict.fromkeys(c)), s), "don't remove doubl"),
    ("check_vote", with_others, "don't remove doubles"),
    (
        "check_vote",
        lambda c, s: vote(c, lambda a, b: s(a, b) + s(b, a)),
        "one direction only",
    ),
    ("check_vote", lambda c, s: vote(c, lambda a, b: -s(a, b)), "or the least alike"),
    ("check_vote", lambda c, s: Counter(c).most_common()[0][0], "the most frequent"),
    ("check_vote", lambda c, s: max(c, key=len), "that is the longest one"),
    ("check_vote", lambda c, s: c[0], "that is always the first one"),
    ("check_vote", by(median), "no median"),
    ("check_vote", by(math.prod), "has not the most votes of"),
    ("check_vote", above_zero, "votes may all be below 0"),
    ("check_vote", lambda c, s: vote(c, s).upper(), "must be one of the candidates"),
    ("check_vote", sorts, "your function changes candidates"),
]
