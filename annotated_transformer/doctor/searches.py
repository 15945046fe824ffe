"""Greedy and beam search: the likeliest tokens, a right start, and an end."""

from collections.abc import Callable, Generator, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from annotated_transformer.doctor.findings import DECODING, SYMPTOM, finding, note
from annotated_transformer.doctor.forcing import (
    disagreement,
    forced,
    log_probabilities,
    sources,
    starts_of,
    training_start,
    without_prompt,
)
from annotated_transformer.doctor.patient import Ids
from annotated_transformer.doctor.report import FINDING, NOTE, Result
from annotated_transformer.doctor.script import FixedLength, Script, Staggered, TooLong
from annotated_transformer.doctor.theirs import same_modes, searched
from annotated_transformer.doctor.visit import Visit

Search = Callable[[Ids], Any]
BeamSearch = Callable[[Ids, int], Any]


def greedy(visit: Visit, search: Search) -> Iterator[Result]:
    """Does it take the model's likeliest token, begin as training did, and end?"""
    src = sources(visit, 3)
    scripted = yield from follow_script(visit, "greedy search", search)
    begun = scripted.start if scripted else None
    if scripted is not None and not visit.patient.decoder_only:
        yield from staggered(visit, src, search)
    try:
        with Script(visit, src).played() as heard:
            rows = searched(search, src)
    except TooLong:
        yield endless("greedy search", NOTE)
        return
    if heard.cached and heard.steps > 2 and visit.patient.cache is None:
        # One token at a time, by a cache that was not given: suspected, if it is wrong.
        visit.facts["cache_causes"] = ["cache_positions", "cache_wrong"]
    yield from compare_greedy(visit, src, rows, begun)
    yield from mode(visit, search)


def staggered(visit: Visit, src: Ids, search: Search) -> Iterator[Result]:
    """Sentences of a batch end one after the other; each must be said whole."""
    chances, words = chain(visit)
    try:
        with Staggered(visit, src, chances, words).played():
            rows = searched(search, src)
    except TooLong:
        return
    said = [as_said(visit, src, row, words) for row in rows]
    short = [i for i, row in enumerate(said) if len(row) < len(words[i:])]
    if len(said) == len(src) and short and said[-1] == words[len(src) - 1 :]:
        first = short[0]
        yield finding(
            "greedy search, a batch whose sentences end in turn",
            f"sentence {first} has {len(words[first:])} words to say and is cut "
            f"after {len(said[first])}, when a shorter one has ended",
            "batch_ends_early",
            measured=f"{len(said[first])} words",
            expected=f"{len(words[first:])} words",
            weight=DECODING,
        )


def compare_greedy(
    visit: Visit, src: Ids, rows: list[list[int]], begun: int | None
) -> Iterator[Result]:
    """Greedy search's own output, against the model that is shown all of it at once."""
    trained = training_start(visit)
    if visit.patient.decoder_only:
        wrong, _ = without_prompt(visit, src, rows)
        starts = [] if wrong else [trained]
    else:
        starts = starts_of(visit, src, rows, begun)
    if not starts:
        yield unlikely(visit, src, rows, "greedy search", "greedy_wrong")
    elif trained not in starts:
        yield finding(
            "greedy search: its start",
            f"decoding begins with token {starts[0]}, training with {trained}",
            "start_token",
            measured=f"first decoder input {starts[0]}",
            expected=f"{trained}, as in training",
            weight=DECODING,
        )


def unlikely(
    visit: Visit, src: Ids, rows: list[list[int]], name: str, cause: str
) -> Result:
    """The outputs are not the likeliest tokens; the cache's own fault comes first."""
    if visit.patient.decoder_only:
        _, says = without_prompt(visit, src, rows)
    else:
        says = disagreement(visit, src, rows, training_start(visit))
    cache = visit.facts.get("cache_causes", [])
    return finding(
        f"{name} against teacher forcing",
        f"{name} does not give the model's likeliest tokens: {says}",
        *dict.fromkeys([*cache, cause, "start_token"]),
        measured=says,
        expected="each token is the likeliest after those before it",
        weight=DECODING - 20 if cache else DECODING,
    )


def mode(visit: Visit, search: Search) -> Iterator[Result]:
    """Called in the middle of training, does it decode without dropout?"""
    if visit.module is None:
        return
    src = sources(visit, 2)
    heard = Script(visit, src, chain(visit)[0])
    ids = visit.sentences([(4, 4), (4, 4)])
    try:
        with same_modes(visit):
            visit.module.train()
            first, second = visit.logits(*ids), visit.logits(*ids)
            with heard.played():
                searched(search, src)
    except TooLong:
        return
    if heard.training and not torch.equal(first, second):
        yield finding(
            "greedy search, called while training",
            "greedy search decodes in train(), with dropout: each run differs",
            "greedy_wrong",
            measured="the module is in train() while decoding",
            expected="eval(), and train() again afterwards",
            weight=SYMPTOM,
        )


def chain(visit: Visit) -> tuple[dict[int | None, dict[int, float]], list[int]]:
    """A script of three words and the end token, and the words."""
    a, b, c = visit.words(1, 3)[0].tolist()
    follows = {None: a, a: b, b: c, c: visit.patient.eos}
    return {token: {after: 0.9999} for token, after in follows.items()}, [a, b, c]


def follow_script(
    visit: Visit, name: str, search: Search
) -> Generator[Result, None, Script | None]:
    """Let a search follow a script: does it say the words, and stop at the end?

    Returns the script, or None if the search could not be listened to.
    """
    chances, words = chain(visit)
    src = sources(visit, 2)
    script = Script(visit, src, chances)
    try:
        with script.played():
            rows = searched(search, src)
    except TooLong:
        yield endless(name, FINDING)
        return script
    if not script.steps:
        return None
    said = [as_said(visit, src, row, words) for row in rows]
    yield from compare_script(name, said, words)
    return script


def compare_script(
    name: str, said: list[list[int]], words: list[int]
) -> Iterator[Result]:
    """What a search said, against the words of its script."""
    wrong = next((row for row in said if row != words), words)
    if wrong[: len(words)] != words:
        cause = "beam_wrong" if name.startswith("beam") else "greedy_wrong"
        yield finding(
            f"{name}, scripted",
            f"the model says tokens {words}; the {name} gives {wrong[:8]}",
            cause,
            "end_token_ignored",
            measured=str(wrong[:8]),
            expected=str(words),
            weight=DECODING,
        )
    elif wrong != words:
        yield finding(
            f"{name}, scripted",
            f"the model says 3 words and the end token; the {name} goes on "
            f"to {len(wrong)} tokens",
            "end_token_ignored",
            measured=f"{len(wrong)} tokens",
            expected="3, then the end",
            weight=DECODING,
        )


def as_said(visit: Visit, src: Ids, row: list[int], words: list[int]) -> list[int]:
    """A row without what was given, the end token and the padding after it."""
    p = visit.patient
    given = src[0].tolist() if p.decoder_only else []
    for prompt in src.tolist() if given else []:
        if row[: len(prompt)] == prompt:
            row = row[len(prompt) :]
    if not given and row and row[0] not in words:
        row = row[1:]  # the start token
    after = row[row.index(p.eos) :] if p.eos in row else []
    if all(token in (p.eos, p.pad) for token in after):
        row = row[: len(row) - len(after)]
    while row and row[-1] == p.pad:
        row = row[:-1]
    return row


def endless(name: str, kind: str) -> Result:
    """Decoding did not end while one waited."""
    says = f"the {name} did not stop in 300 steps or 20 seconds"
    numbers = {
        "measured": "more than 300 steps, or 20 seconds",
        "expected": "an end, and a limit of tokens",
    }
    if kind == NOTE:
        return note(name, f"{says}, and the model said no end token", **numbers)
    says += ", after the end token"
    return finding(name, says, "end_token_ignored", weight=DECODING, **numbers)


def beam(visit: Visit, search: BeamSearch) -> Iterator[Result]:
    """A beam of one is greedy search; more beams find what greedy search misses."""
    one, src = partial(of_size, search, 1), sources(visit, 4)
    scripted = yield from follow_script(visit, "beam search", one)
    start = scripted.start if scripted else None
    if start not in (None, training_start(visit)):
        yield finding(
            "beam search: its start",
            f"beam search begins with token {start}, training with "
            f"{training_start(visit)}",
            "start_token",
            "beam_wrong",
            measured=f"first decoder input {start}",
            expected=f"{training_start(visit)}, as in training",
            weight=DECODING,
        )
    try:
        with Script(visit, src).played():
            rows = searched(one, src)
    except TooLong:
        yield endless("beam search", NOTE)
        return
    if not starts_of(visit, src, rows, start):
        yield unlikely(visit, src, rows, "a beam of one", "beam_wrong")
    elif scripted is not None:
        wrong = list(traps(visit, partial(of_size, search, 2)))
        yield from wrong
        if not wrong and start is not None:
            yield from four_beams(visit, partial(of_size, search, 4), start)


def of_size(search: Callable[[Ids, int], Any], size: int, src: Ids) -> Any:
    """The search with so many beams."""
    return search(src, size)


def traps(visit: Visit, search: Search) -> Iterator[Result]:
    """Two scripts: one for who forgets to add, one for who mixes up histories."""
    a, b, x, y = visit.words(1, 4)[0].tolist()
    end = visit.patient.eos
    rest: dict[int | None, dict[int, float]] = {y: {end: 0.999}}
    rest[None] = {a: 0.9, b: 0.0999}
    add = rest | {a: {x: 0.5}, b: {y: 0.9}, x: {end: 0.6}}
    rest[None] = {a: 0.6, b: 0.3999}
    history = rest | {a: {x: 0.3}, b: {y: 0.9}, x: {end: 0.999}}
    for chances, words, what in (
        (add, [a, x], "adds log-probabilities"),
        (history, [b, y], "keeps two histories apart"),
    ):
        src = sources(visit, 2)
        try:
            with Script(visit, src, chances).played():
                rows = searched(search, src)
        except TooLong:
            yield endless("beam search", FINDING)
            return
        said = [as_said(visit, src, row, [a, b]) for row in rows]
        wrong = [row for row in said if row != words]
        if wrong:
            yield finding(
                "two beams, scripted",
                f"two beams miss the likeliest output, which a search that {what} "
                f"finds: {wrong[0][:8]} instead of {words}",
                "beam_wrong",
                measured=str(wrong[0][:8]),
                expected=str(words),
                weight=DECODING,
            )


def four_beams(visit: Visit, search: Search, start: int) -> Iterator[Result]:
    """Four beams of a fixed length against the doctor's own, which have no cache."""
    src, length = sources(visit, 4), 6
    script = FixedLength(visit, src, length=length, start=start)
    try:
        with script.played():
            rows = searched(search, src)
        cached = script.cached
        with script.played():
            best, outputs = zip(
                *(own_beams(visit, one, start, length) for one in src), strict=True
            )
            again = [
                likeliness(visit, *pair, start)
                for pair in zip(src, outputs, strict=True)
            ]
            said = [row[row[:1] == [start] :][:length] for row in rows]
            found = [
                likeliness(visit, one, row, start) if len(row) == length else -torch.inf
                for one, row in zip(src, said, strict=True)
            ]
    except TooLong:
        yield endless("beam search", FINDING)
        return
    lost = [high - low for low, high in zip(found, best, strict=True)]
    worse = sum(nats > 0.5 for nats in lost)
    noise = max(abs(a - b) for a, b in zip(best, again, strict=True))
    if worse < 2 or script.begun is None or not noise < 0.1:
        return
    causes = ["beam_wrong", "cache_not_reordered"]
    yield finding(
        "four beams against the doctor's own",
        f"for {worse} of 4 sources, four beams end with outputs less likely than "
        f"the doctor's four, by {max(lost):.2g} nats at most",
        *(causes[::-1] if cached else causes),
        measured=f"{worse} of 4 sources",
        expected="0, or now and then 1",
        weight=DECODING,
    )


def own_beams(
    visit: Visit, src: Tensor, start: int, length: int
) -> tuple[float, list[int]]:
    """What four beams find, each prefix read anew: its log-probability, its ids."""
    ids = torch.full((1, 1), start, device=src.device)
    scores = torch.zeros(1, 1, device=src.device)
    for _ in range(length):
        logits = visit.logits(src.expand(len(ids), -1), ids)[:, -1]
        scores = scores + log_probabilities(logits)
        top, index = scores.flatten().topk(4)
        origin, new = index // logits.size(-1), index % logits.size(-1)
        ids, scores = torch.cat([ids[origin], new[:, None]], 1), top[:, None]
    return float(scores[0]), ids[0, 1:].tolist()


def likeliness(visit: Visit, src: Tensor, row: list[int], start: int) -> float:
    """An output's log-probability by teacher forcing."""
    logits = log_probabilities(forced(visit, src, row, [start]))
    ids = torch.tensor(row, device=logits.device)
    return float(logits.gather(-1, ids[:, None]).sum())
