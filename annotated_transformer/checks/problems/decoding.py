"""Greedy and beam search with a cache, problem 3.2."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from annotated_transformer.checks.common import (
    Answer,
    Function,
    Mistake,
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


def greedy_reference(model: TableModel, limit: int, first: int = BOS) -> list[int]:
    """The likeliest token each time, without a cache."""
    history = [first]
    while len(history) <= limit:
        token = int(model.logits(tuple(history)).argmax())
        if token == EOS:
            break
        history.append(token)
    return history[1:]


def check_greedy(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`greedy(model, src, limit)` for one sentence: ids without start and end token.

    Parts: "tokens", "cache" (one encoding, one new token a step).
    """
    return verdict(function, part, seed, tokens=_tokens, cache=_cache)


def _decoded(found: Any) -> list[int]:
    if isinstance(found, Tensor):
        found = found.flatten().tolist()
    need(isinstance(found, list), f"return a list of ids, not a {type(found).__name__}")
    found = [int(token) for token in found]
    need(BOS not in found, "the start token is no output: leave it out")
    need(EOS not in found, "the end token is no output: leave it out")
    return found


def _tokens(function: Answer, seed: int) -> None:
    for case in range(4):
        model = TableModel(100 * seed + case, end=0.5 * case)
        found = _decoded(ask_plain(function, model, SRC, 12))
        right = greedy_reference(model, 12)
        compare(
            found,
            right,
            (
                (
                    greedy_reference(model, 12, PAD),
                    "decoding starts from padding: start from BOS, as in training",
                ),
                (
                    greedy_reference(model, 12, EOS),
                    "decoding starts from EOS: start from BOS, as in training",
                ),
                (right[:-1], "the last token is missing: only EOS is left out"),
                (right[1:], "the first token is missing: only BOS is left out"),
            ),
            f"with the likeliest token each time it is {right}, not {found}",
        )
    model = TableModel(seed, end=-60.0)  # never ends by itself
    right = greedy_reference(model, 5)
    found = _decoded(ask_plain(function, model, SRC, 5))
    need(
        len(found) >= 5,
        f"limit 5 allows 5 tokens, not {len(found)}",
    )
    need(
        len(found) <= 5,
        f"a model that never says EOS: stop after limit (5) tokens, not {len(found)}",
    )
    need(found == right, f"without EOS it is {right}, not {found}")


def ask_plain(function: Answer, *arguments: Any) -> Any:
    """What the function answers to the arguments themselves."""
    answer = function.let(*arguments)
    if answer is None or answer is ...:
        raise Mistake("not done yet")
    return answer


def _cache(function: Answer, seed: int) -> None:
    model = TableModel(100 * seed + 1, end=-1.0)
    found = _decoded(ask_plain(function, model, SRC, 99))
    need_cache(model)
    need(
        int(model.read[0][0, 0]) == BOS,
        f"the first token read is {int(model.read[0][0, 0])}: start from BOS ({BOS}), "
        "as in training",
    )
    need(
        len(model.read) <= len(found) + 1,
        f"{len(model.read)} steps for {len(found)} tokens: stop when EOS comes",
    )
    need_room(model)
    right = greedy_reference(model, 99)
    need(found == right, f"with the cache it says {found}, without {right}")


def beam_reference(
    model: TableModel,
    beam_size: int,
    alpha: float,
    limit: int,
    *,
    raw: bool = False,
    first: int = BOS,
    count_end: int = 0,
    multiply: bool = False,
    early: bool = False,
    live_only: bool = False,
    lost_order: bool = False,
    penalty: Callable[[int, float], float] | None = None,
) -> list[int]:
    """Beam search without a cache; the switches make the wrong versions we know."""
    penalty = penalty or (lambda n, alpha: ((5 + n) / 6) ** alpha)
    live: list[tuple[float, tuple[int, ...]]] = [(0.0, (first,))]
    seen: list[tuple[int, ...]] = [(first,)]
    ended: list[tuple[float, list[int]]] = []
    for length in range(1, limit + 1):
        candidates = []
        for row, (score, history) in enumerate(live):
            logits = model.logits(seen[row] if lost_order else history)
            steps = logits if raw else logits.log_softmax(-1)
            for token, step in enumerate(steps.tolist()):
                candidates.append((score + step, row, (*history, token)))
        candidates.sort(key=lambda c: -c[0])
        live, rows = [], []
        for score, row, history in candidates[:beam_size]:
            if history[-1] == EOS or length == limit:
                n = length - (count_end if history[-1] == EOS else 0)
                divisor = penalty(n, alpha)
                final = score * divisor if multiply else score / divisor
                words = list(history[1:-1] if history[-1] == EOS else history[1:])
                if not (live_only and history[-1] == EOS):
                    ended.append((final, words))
            else:
                live.append((score, history))
                rows.append(row)
        if lost_order:
            kept = list(range(len(rows)))
            seen = [
                (*seen[min(k, len(seen) - 1)], h[-1])
                for k, (_, h) in zip(kept, live, strict=True)
            ]
        if not live or (early and ended):
            break
    if not ended:
        return list(live[0][1][1:]) if live else []
    return max(ended, key=lambda pair: pair[0])[1]


def check_beam(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`beam(model, src, beam_size, alpha, limit)`: the best ids of a sentence (§6.1).

    Parts: "search" (alpha 0), "penalty", "cache" (one encoding; rows kept in order).
    """
    return verdict(
        function,
        part,
        seed,
        search=lambda f, seed: _beam(f, seed, (0.0,)),
        penalty=lambda f, seed: _beam(f, seed, (0.6, 2.0)),
        cache=_beam_cache,
    )


def _beam(function: Answer, seed: int, alphas: Sequence[float]) -> None:
    """Compare many small searches; a mistake is named if it explains all outputs."""
    cases = [
        (TableModel(1000 * seed + i, end=(-1.0, 0.0, 1.0)[i % 3]), size, alpha)
        for i in range(12)
        for size in (1, 2, 4)
        for alpha in alphas
    ]
    limit = 8
    found = [
        _decoded(ask_plain(function, model, SRC, size, alpha, limit))
        for model, size, alpha in cases
    ]

    def version(**switches: Any) -> list[list[int]]:
        return [
            beam_reference(model, size, alpha, limit, **switches)
            for model, size, alpha in cases
        ]

    right = version()
    if found == right:
        return
    greedy = [beam_reference(model, 1, 0.0, limit) for model, _, _ in cases]
    no_penalty = [beam_reference(model, n, 0.0, limit) for model, n, _ in cases]
    for wrong, message in (
        (greedy, "that is greedy search, whatever the beam: expand every hypothesis"),
        (version(raw=True), "logits are no log-probabilities: take log_softmax first"),
        (version(first=PAD), "decoding starts from padding: start from BOS"),
        (
            version(lost_order=True),
            "the cache was not reordered: after each choice call cache.keep(origin)",
        ),
        (
            version(early=True),
            "the first hypothesis to end is taken: go on, another may still be better",
        ),
        (
            version(live_only=True),
            "hypotheses that ended are lost: keep them, and compare at the end",
        ),
        (no_penalty, "alpha changes nothing: divide by ((5 + length) / 6) ** alpha"),
        (
            version(multiply=True),
            "the penalty divides the (negative) log-probability: you multiply",
        ),
        (version(count_end=1), "the length counts the end token, too"),
        (
            version(penalty=lambda n, alpha: max(n, 1) ** alpha),
            "you divide by length ** alpha: the paper has ((5 + length) / 6) ** alpha",
        ),
        (
            version(penalty=lambda n, alpha: max(n, 1)),
            "alpha is not used: you divide by the length itself",
        ),
        (
            version(penalty=lambda n, alpha: ((5 + n) / 6) ** -alpha),
            "the penalty divides the (negative) log-probability: you multiply",
        ),
    ):
        if found == wrong and wrong != right:
            raise Mistake(message)
    i = next(i for i in range(len(cases)) if found[i] != right[i])
    raise Mistake(
        f"beam_size {cases[i][1]} and alpha {cases[i][2]} should find {right[i]}, "
        f"not {found[i]}"
    )


def _beam_cache(function: Answer, seed: int) -> None:
    model = TableModel(1000 * seed + 7, end=-2.0)
    found = _decoded(ask_plain(function, model, SRC, 3, 0.6, 8))
    need_cache(model)
    need(
        model.kept > 0,
        "the cache was never reordered: after each choice call cache.keep(origin)",
    )
    need(
        len(model.read) <= 8,
        f"{len(model.read)} steps with limit 8: one step a position, for all beams",
    )
    need_room(model)
    right = beam_reference(model, 3, 0.6, 8)
    need(found == right, f"with the cache it finds {found}, without {right}")
