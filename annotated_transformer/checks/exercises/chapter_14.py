"""Checks of chapter 14, A translator: one for each exercise."""

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

from annotated_transformer.checks.common import (
    Answer,
    Mistake,
    compare,
    errors_mean,
    exercise,
    need,
    need_number,
    same,
)
from annotated_transformer.errors import InputError

__all__ = ["check_batches", "check_split", "check_wilson"]

Sentences = list[tuple[str, set[str]]]


def wilson(hits: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """The Wilson interval of a share."""
    p = hits / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return middle - half, middle + half


def _two(answer: Any) -> tuple[float, float]:
    listed = answer.tolist() if hasattr(answer, "tolist") else answer
    two = isinstance(listed, list | tuple) and len(listed) == 2
    need(two, "give two numbers: the lower end and the upper end")
    low, high = map(need_number, listed)
    return low, high


@exercise
def check_wilson(function: Answer) -> None:
    """`my_interval(hits, n)`: the Wilson interval, two shares from 0 to 1."""
    low, high = _two(function(90, 100))
    need(max(low, high) <= 1.5, "shares lie between 0 and 1: did you give percents?")
    for hits, n in ((90, 100), (10, 100), (0, 10), (10, 10), (1, 1), (700, 1000)):
        ends, case = "wrong at the ends: try 0 of 10 and 10 of 10", f"{hits} of {n}"
        with errors_mean(f"{case}: {{error}}", ValueError, ZeroDivisionError):
            found = _two(function(hits, n))
        # An end outside of 0 to 1 by a rounding error may be put at 0 or 1.
        if not same(found, wilson(hits, n), 2e-4):
            table = _wilson_mistakes(hits, n) if n > 10 else ()
            hint = case if n > 10 else ends
            compare(found, wilson(hits, n), table, hint, 2e-4)


def _wilson_mistakes(hits: int, n: int) -> Iterator[tuple[tuple[float, float], str]]:
    """What comes out by one mistake each, and its name."""
    z, p, (low, high) = 1.96, hits / n, wilson(hits, n)
    square, middle, half = z * z / n, (low + high) / 2, (high - low) / 2
    ends = "that is middle and half width: the ends are their difference and sum"
    yield (middle, half), ends
    yield (high, low), "the lower end comes first"
    wide, root = half * (1 + square), half / z
    unsquared = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n)) / (1 + square)
    unrooted = z * (p * (1 - p) / n + z * z / (4 * n * n)) / (1 + square)
    normal, both = z * math.sqrt(p * (1 - p) / n), "divide by 1 + z²/n"
    once = z * math.sqrt(p * (1 - p) / n + z / (4 * n * n)) / (1 + square)
    whole = (p + square) / (1 + square)
    for center, reach, message in (
        (
            p,
            normal,
            "that is p ± z√(p(1-p)/n): for 10 of 10 it would be exactly 1 to 1",
        ),
        (p, half, "the middle is p itself: it must be pulled toward 1/2 by z²/2n"),
        (whole, half, "the middle is pulled by z²/2n: where is the 2?"),
        (middle, root, "the half width lacks its z, before the root"),
        (middle, unsquared, "in the root, it is z² over 4n²: the n is squared, too"),
        (middle, unrooted, "where is the root of the half width?"),
        (middle, once, "in the root, it is z² over 4n²: the z is squared, too"),
        (middle, normal / (1 + square), "in the root, z²/4n² is missing"),
        (middle * (1 + square), wide, f"{both}, both the middle and the half width"),
        (middle * (1 + square), half, f"{both}, the middle, too"),
        (middle, wide, f"{both}, the half width, too"),
    ):
        yield (center - reach, center + reach), message
    for other in (1.0, 1.64, 1.645, 2.0, 2.326, 2.576):
        two_sided = "z is 1.96 for 95 cases in 100, two-sided; yours is"
        yield wilson(hits, n, other), f"{two_sided} {other}"


def _capitals(seen: list[list[str]]) -> Callable[[list[str]], list[str]]:
    """A model that translates into capitals, and notes each batch."""

    def model(batch: list[str]) -> list[str]:
        several = isinstance(batch, list | tuple) and bool(batch)
        need(several, "the model takes a list of sentences, at least one")
        seen.append(list(batch))
        return [text.upper() for text in batch]

    return model


@exercise
def check_batches(function: Answer) -> None:
    """`my_translate(sentences, model)`: batches of similar length, answers in order."""
    sentences = ["a b c d e f", "g", "", "h i", "j k l m n o p", "q r", "s t u v w"]
    sentences += ["  ", "x", "y z"]
    letters = "aaaaaaaaaaaa bb"  # by words it is short, by letters it is long
    for case in (
        sentences,
        [*sentences, letters, "g", "q r", "a b c"],  # some of them twice
        ["one"],
        [],
        [" ", ""],
        [f"{i} " * (i * 7 % 12 + 1) for i in range(103)],
    ):
        seen: list[list[str]] = []
        answer = function(case, _capitals(seen))
        _need_fair_batches(seen, case)
        _need_in_order(answer, case)
        _need_similar(seen)


def _need_fair_batches(seen: list[list[str]], sentences: list[str]) -> None:
    """Raise a Mistake unless the model saw each full sentence once, by fours."""
    given = [text for batch in seen for text in batch]
    full = [text for text in sentences if text.strip()]
    blank = "a blank sentence went to the model: it would invent a caption"
    need(all(text.strip() for text in given), blank)
    need(all(len(batch) <= 4 for batch in seen), "a batch has more than 4 sentences")
    sums = f"the model saw {len(given)} of {len(full)} sentences"
    need(len(given) >= len(set(full)), f"{sums}: is the last batch lost?")
    need(len(given) <= len(full), f"{sums}: each one once")
    calls = f"{len(seen)} calls for {len(full)} sentences: fill the batches"
    need(len(seen) <= math.ceil(len(full) / 4), calls)


def _need_in_order(answer: Any, sentences: list[str]) -> None:
    """Raise a Mistake unless each sentence has its own translation at its position."""
    several = isinstance(answer, list | tuple)
    need(several, "give a list of translations, one for each sentence")
    counts = f"{len(answer)} answers for {len(sentences)}"
    need(len(answer) >= len(sentences), f"{counts}: where are the blank ones?")
    need(len(answer) == len(sentences), counts)
    texts = all(isinstance(text, str) for text in answer)
    need(texts, "each answer is a text, and a blank sentence stays blank")
    found = [text.strip() for text in answer]  # a blank may keep its spaces
    right = [text.upper().strip() for text in sentences]
    order = "all there, but in another order: put each answer back in its place"
    need(found == right or sorted(found) != sorted(right), order)
    need(found == right, "not each sentence got its own translation")


def _need_similar(seen: list[list[str]]) -> None:
    """Raise a Mistake unless the batches follow one another in length."""
    lengths = sorted(sorted(len(text.split()) for text in batch) for batch in seen)
    apart = all(short[-1] <= long[0] for short, long in pairwise(lengths))
    need(
        apart, "short and long sentences share a batch: sort by length first, in words"
    )


TOY: Sentences = [
    ("s1", {"klein Hund"}), ("s2", {"klein Katze", "rot Ball"}), ("s3", {"rot Ball"}),
    ("s4", {"groß Hund"}), ("s5", {"klein Hund", "groß Katze"}), ("s6", {"klein Ball"}),
    ("s7", set()), ("s8", {"rot Katze"}),
]  # fmt: skip
OTHER: Sentences = [("t1", {"alt Haus"}), ("t2", {"alt Baum"}), ("t3", {"neu Haus"})]
LOST: dict[str, tuple[Sentences, set[str]]] = {
    # what to hold out of which sentences: each must raise
    "hold out klein Hund and groß Hund: Hund is never met in training: raise": (
        TOY, {"klein Hund", "groß Hund"}),
    "a word that is met only in sentences of the test is not met in training": (
        [("u1", {"klein Hund", "groß Hund", "klein Ball"}), ("u2", {"klein Ball"})],
        {"klein Hund"}),
    "rot stands in rot Ball alone: the adjective must be met, not only the noun": (
        [("v1", {"rot Ball"}), ("v2", {"blau Ball"})], {"rot Ball"}),
    "alt is not met where kalt is: compare whole words": (
        [("w1", {"alt Haus"}), ("w2", {"kalt Haus"})], {"alt Haus"}),
}  # fmt: skip


@exercise
def check_split(function: Answer) -> None:
    """`my_split(sentences, held_out)`: names for training, names for the test."""
    reason = "all words occur in training, in other company: no reason to raise"
    many: Sentences = [
        (f"m{i}", {f"a{i % 7} n{i % 11}", f"a{i % 5} n{i % 3}"}) for i in range(200)
    ]
    for sentences, held_out in (
        (TOY, {"klein Hund", "rot Ball"}),
        (OTHER, {"alt Haus"}),
        (many, {"a1 n1", "a0 n2"}),
        (TOY, set()),
    ):
        with errors_mean(reason, InputError):
            answer = function(sentences, held_out)
        _need_split(answer, sentences, held_out)
    for what, (sentences, held_out) in LOST.items():
        try:
            function(sentences, held_out)
        except InputError:
            continue
        except ValueError:
            input_error = (
                "raise InputError, so that the caller knows: the input was wrong"
            )
            raise Mistake(input_error) from None
        raise Mistake(what)


def _need_split(answer: Any, sentences: Sentences, held_out: set[str]) -> None:
    """Raise a Mistake unless these are the names of both parts."""
    two = isinstance(answer, list | tuple) and len(answer) == 2
    need(two, "return two lists: training sentences and test sentences")
    train, test = (list(part) for part in answer)
    named = all(isinstance(name, str) for name in train + test)
    need(named, "give the names of the sentences, without their combinations")
    held = {name for name, combinations in sentences if combinations & held_out}
    free = {name for name, _ in sentences} - held
    need(not set(train) & set(test), "a sentence stands in both lists")
    swapped = "the lists have changed places: training comes first"
    need(not held or (set(train), set(test)) != (held, free), swapped)
    combination = "training has a held-out combination: look at all those of a sentence"
    need(not held & set(train), combination)
    need(not free & set(test), "a test sentence uses nothing that is held out")
    lost = "a sentence is lost: is one without any combination training, too?"
    need({*train, *test} == held | free, lost)
    once = "a sentence stands twice in a list"
    need(len(train) + len(test) == len(sentences), once)
