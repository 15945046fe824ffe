"""Greedy and beam search with a cache, problem 3.2."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from annotated_transformer.checks.common import (
    NOT_DONE,
    Answer,
    Function,
    compare,
    need,
    verdict,
)
from annotated_transformer.checks.problems.table_model import (
    SRC,
    TableModel,
    need_cache,
    need_room,
)
from annotated_transformer.special import BOS, EOS, PAD

__all__ = ["check_beam", "check_greedy"]

History = tuple[int, ...]
Rank = Callable[[float, int, bool, float], float]


def check_greedy(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`greedy(model, src, limit)` for one sentence: ids without start and end token.

    Parts: "tokens", "cache" (one encoding, one new token a step).
    """
    return verdict(function, part, seed, tokens=need_greedy, cache=_cache)


def decoded(function: Answer, model: TableModel, *rest: Any) -> list[int]:
    """The ids that it finds with this very model, which notes how it is used."""
    found = function.let(model, SRC, *rest)
    need(found is not None and found is not ..., NOT_DONE)
    if isinstance(found, Tensor):
        found = found.flatten().tolist()
    kind = type(found).__name__
    need(isinstance(found, list | tuple), f"return a list of ids, not a {kind}")
    text = any(isinstance(token, str) for token in found)
    need(not text and all(map(is_id, found)), "return the ids alone, one list of them")
    found = [int(token) for token in found]
    need(BOS not in found, "the start token is no output: leave it out")
    need(EOS not in found, "the end token is no output: leave it out")
    return found


def is_id(token: Any) -> bool:
    """A whole number of any kind."""
    return not isinstance(token, list | tuple) and int(token) == token


def greedy_reference(
    model: TableModel, limit: int, first: int = BOS, choose: str = "argmax"
) -> list[int]:
    """The likeliest token each time, without a cache."""
    history = [first]
    while len(history) <= limit:
        token = int(getattr(model.logits(tuple(history)), choose)())
        if token == EOS:
            break
        history.append(token)
    return history[1:]


def need_greedy(function: Answer, seed: int) -> None:
    """Raise a Mistake unless it takes the likeliest token each time, and stops."""
    for case in range(4):
        model = TableModel(100 * seed + case, end=0.5 * case)
        found, right = decoded(function, model, 12), greedy_reference(model, 12)
        start = "decoding starts from {}: start from BOS, as in training"
        hint = f"with the likeliest token each time it is {right}, not {found}"
        mistakes = (
            (greedy_reference(model, 12, PAD), start.format("padding")),
            (greedy_reference(model, 12, EOS), start.format("EOS")),
            (greedy_reference(model, 12, choose="argmin"), "that is argmin: argmax"),
            (right[:1], "one token only: is the return inside the loop?"),
            (right[:-1], "the last token is missing: only EOS is left out"),
            (right[1:], "the first token is missing: only BOS is left out"),
            (right[::-1], "the tokens are in reverse order"),
        )
        compare(found, right, mistakes, hint)
    for limit in (5, 1):
        model = TableModel(seed, end=-60.0)  # never ends by itself
        right, found = greedy_reference(model, limit), decoded(function, model, limit)
        n, allowed = len(found), f"limit {limit} allows {limit} tokens"
        need(n >= limit, f"{allowed}, not {n}")
        stop = f"a model that never says EOS: stop after limit ({limit}) tokens"
        need(n <= limit, f"{stop}, not {n}")
        need(found == right, f"without EOS it is {right}, not {found}")


def _cache(function: Answer, seed: int) -> None:
    model = TableModel(100 * seed + 1, end=-1.0)
    found, right = decoded(function, model, 99), greedy_reference(model, 99)
    need_cache(model)
    steps, first = len(model.read), int(model.read[0][0, 0])
    start = f"the first token read is {first}: start from BOS ({BOS}), as in training"
    need(first == BOS, start)
    late = f"{steps} steps for {len(found)} tokens: stop when EOS comes"
    need(steps <= len(found) + 1, late)
    need_room(model)
    need(found == right, f"with the cache it says {found}, without {right}")


def check_beam(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`beam(model, src, beam_size, alpha, limit)`: the best ids of a sentence (§6.1).

    Parts: "search" (alpha 0), "penalty", "cache" (one encoding; rows kept in order).
    """
    search = partial(_beam, alphas=(0.0,))
    penalty = partial(_beam, alphas=(0.6, 2.0))
    return verdict(
        function, part, seed, search=search, penalty=penalty, cache=_beam_cache
    )


def penalized(score: float, length: int, ended: bool, alpha: float) -> float:
    """What a hypothesis is worth: its log-probability, divided by the penalty."""
    return score / ((5 + length) / 6) ** alpha


def expanded(
    model: TableModel, live: Sequence[tuple[float, History, History]], kind: str
) -> list[tuple[float, int, History]]:
    """Every beginning with every token: score, row and history, the best first."""
    candidates = []
    for row, (score, history, read) in enumerate(live):
        logits = model.logits(read)
        steps = {"logits": logits, "softmax": logits.softmax(-1)}
        for token, step in enumerate(steps.get(kind, logits.log_softmax(-1)).tolist()):
            candidates.append((score + step, row, (*history, token)))
    return sorted(candidates, key=lambda candidate: -candidate[0])


def beam_reference(
    model: TableModel,
    beam_size: int,
    alpha: float,
    limit: int,
    *,
    rank: Rank = penalized,
    first: int = BOS,
    kind: str = "log_softmax",
    habit: str = "",
) -> list[int]:
    """Beam search without a cache; the options make the wrong versions we know.

    A habit is "early" (it stops at the first end), "live" (those that ended are lost),
    "cut" (those cut by the limit are), "shrinking" (each end takes a place in the beam)
    or "lost order" (a row goes on with what row k has read, not with its own).
    """
    live: list[tuple[float, History, History]] = [(0.0, (first,), (first,))]
    done: list[tuple[float, History]] = []
    for length in range(1, limit + 1):
        room = beam_size - len(done) * (habit == "shrinking")
        kept, before, live = expanded(model, live, kind)[: max(room, 0)], live, []
        for score, row, history in kept:
            ended = history[-1] == EOS
            if not ended and length < limit:
                row = min(len(live), len(before) - 1) if habit == "lost order" else row
                live.append((score, history, (*before[row][2], history[-1])))
            elif habit != ("live" if ended else "cut"):
                worth = rank(score, length, ended, alpha)
                done.append((worth, history[1:-1] if ended else history[1:]))
        if not live or (habit == "early" and done):
            break
    return list(max(done, key=lambda pair: pair[0])[1]) if done else []


def wrong_searches() -> Iterator[tuple[dict[str, Any], str]]:
    """The options of searches that are known to be wrong, each with its cause."""
    start = "decoding starts from {}: start from BOS, as in training"
    order = "the cache was not reordered: after each choice call cache.keep(origin)"
    early = "the first hypothesis to end is taken: go on, another may still be better"
    lost = "hypotheses that ended are lost: keep them, and compare at the end"
    multiplied = "the penalty divides the (negative) log-probability: you multiply"
    paper = "the paper has ((5 + length) / 6) ** alpha"
    yield {"size": 1}, "that is greedy search, whatever the beam: expand every one"
    yield {"kind": "logits"}, "logits are no log-probabilities: take log_softmax first"
    yield {"kind": "softmax"}, "probabilities multiply: add up their logarithms"
    yield {"first": PAD}, start.format("padding")
    yield {"first": EOS}, start.format("EOS")
    yield {"habit": "lost order"}, order
    yield {"habit": "early"}, early
    yield {"habit": "live"}, lost
    yield {"habit": "cut"}, "those of length limit are done, too: let them compete"
    yield {"habit": "shrinking"}, "each end makes the beam smaller: it keeps its size"
    yield {"alpha": 0}, f"alpha changes nothing: divide by the penalty; {paper}"
    for rank, message in (
        (lambda s, n, end, a: -penalized(s, n, end, a), "the worst wins: max for min"),
        (lambda s, n, end, a: s * ((5 + n) / 6) ** a, multiplied),
        (lambda s, n, end, a: penalized(s, n - end, end, a), "count EOS in the length"),
        (lambda s, n, end, a: penalized(s, n + 1, end, a), "BOS counts in no length"),
        (lambda s, n, end, a: s / n**a, f"you divide by length ** alpha: {paper}"),
        (lambda s, n, end, a: s / n, "alpha is not used: you divide by the length"),
        (lambda s, n, end, a: s / ((5 + n) / 6), "where is alpha, the power?"),
        (
            lambda s, n, end, a: s / ((5 + n) ** a / 6),
            f"the 6, too: {paper}",
        ),
        (
            lambda s, n, end, a: s / ((5 + n) / 6 * a or 1),
            "alpha is a power",
        ),
    ):
        yield {"rank": rank}, message


def _beam(function: Answer, seed: int, alphas: Sequence[float]) -> None:
    """Compare many small searches; a mistake is named if it explains all outputs."""
    cases = [
        (TableModel(1000 * seed + i, end=(-1.0, 0.0, 1.0)[i % 3]), size, alpha, 8)
        for i in range(12)
        for size in (1, 2, 4)
        for alpha in alphas
    ]
    cases.append((TableModel(seed, end=-60.0), 3, alphas[0], 1))
    right = [beam_reference(*case) for case in cases]
    found = [decoded(function, *case) for case in cases]
    if found == right:
        return

    def version(
        case: tuple[TableModel, int, float, int],
        size: int = 0,
        alpha: float = 1,
        **options: Any,
    ) -> list[int]:
        model, beam_size, a, limit = case
        return beam_reference(model, size or beam_size, alpha * a, limit, **options)

    pairs = list(zip(found, cases, strict=True))
    for options, message in wrong_searches():
        explains = all(output == version(case, **options) for output, case in pairs)
        need(not explains, message)
    names = [f"beam_size {n}, alpha {a} and limit {m}" for _, n, a, m in cases]
    compare(found, right, cases=names)


def _beam_cache(function: Answer, seed: int) -> None:
    model = TableModel(1000 * seed + 7, end=-2.0)
    found = decoded(function, model, 3, 0.6, 8)
    need_cache(model)
    order = "the cache was never reordered: after each choice call cache.keep(origin)"
    need(model.kept > 0, order)
    steps = f"{len(model.read)} steps with limit 8: one step a position, for all beams"
    need(len(model.read) <= 8, steps)
    need_room(model)
    right = beam_reference(model, 3, 0.6, 8)
    need(found == right, f"with the cache it finds {found}, without {right}")
