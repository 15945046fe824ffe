"""Checks of chapter 14, A translator: one for each exercise."""

import math
from typing import Any

from annotated_transformer.checks.common import Answer, exercise
from annotated_transformer.errors import InputError

__all__ = ["check_batches", "check_split", "check_wilson"]

Sentences = list[tuple[str, set[str]]]


def wilson(hits: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """The Wilson interval of a share."""
    p = hits / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return middle - half, middle + half


def near(pair: Any, other: Any, tolerance: float) -> bool:
    """Are both numbers close to the other two?"""
    return all(abs(x - y) < tolerance for x, y in zip(pair, other, strict=True))


@exercise
def check_wilson(function: Answer) -> str:
    """`my_interval(hits, n)`: the Wilson interval, two shares from 0 to 1."""
    p, n, z = 0.9, 100, 1.96
    answer = function(90, n)
    try:
        low, high = answer = [float(x) for x in answer]
    except (TypeError, ValueError):
        return "give two numbers: the lower end and the upper end"
    square, target = z * z / n, wilson(90, n)
    middle, half = sum(target) / 2, (target[1] - target[0]) / 2
    if max(answer) > 1.5:
        return "shares lie between 0 and 1: did you give percents?"
    if near(answer, (middle, half), 2e-3):
        return "that is middle and half width: the ends are their difference and sum"
    if low > high:
        return "the lower end comes first"
    wide, root = half * (1 + square), half / z
    unsquared = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n)) / (1 + square)
    normal = z * math.sqrt(p * (1 - p) / n)
    both = "divide by 1 + z²/n, both the middle and the half width"
    mistakes = {
        "that is p ± z√(p(1-p)/n): for 10 of 10 it would be exactly 1 to 1": (
            p,
            normal,
        ),
        "the middle is p itself: it must be pulled toward 1/2 by z²/2n": (p, half),
        "the half width lacks its z, before the root": (middle, root),
        "in the root, it is z² over 4n²: the n is squared, too": (middle, unsquared),
        both: (middle * (1 + square), wide),
        both + ": the middle is not": (middle * (1 + square), half),
        both + ": the half width is not": (middle, wide),
    }
    for what, (center, reach) in mistakes.items():
        if near(answer, (center - reach, center + reach), 3e-4):
            return what
    for other in (1.645, 2.0, 2.576):
        if near(answer, wilson(90, n, other), 3e-4):
            return f"z is 1.96 for 95 cases in 100, two-sided; yours is {other}"
    if not near(answer, target, 6e-4):
        return f"90 of 100 should give {target[0]:.3f} to {target[1]:.3f}"
    none, every = tuple(function(0, 10)), tuple(function(10, 10))
    if not (near(none, wilson(0, 10), 1e-3) and near(every, wilson(10, 10), 1e-3)):
        return "wrong at the ends: try 0 of 10 and 10 of 10"
    return "correct"


@exercise
def check_batches(function: Answer) -> str:
    """`my_translate(sentences, model)`: batches of similar length, answers in order."""
    sentences = ["a b c d e f", "g", "", "h i", "j k l m n o p", "q r", "s t u v w"]
    sentences += ["  ", "x", "y z"]
    seen: list[list[str]] = []

    def model(batch: list[str]) -> list[str]:
        seen.append(list(batch))
        return [text.upper() for text in batch]

    answer = function(list(sentences), model)
    if not isinstance(answer, list | tuple):
        return "give a list of translations, one for each sentence"
    given = [text for batch in seen for text in batch]
    if any(not text.strip() for text in given):
        return "a blank sentence went to the model: it would invent a caption"
    if any(len(batch) > 4 for batch in seen):
        return "a batch has more than 4 sentences"
    if len(given) < 8:
        return f"the model saw {len(given)} of 8 sentences: is the last batch lost?"
    if len(answer) == 8:
        return f"8 answers for {len(sentences)}: where are the blank ones?"
    if len(seen) > 2:
        return f"{len(seen)} calls for 8 sentences: fill the batches"
    if not all(isinstance(text, str) for text in answer):
        return "each answer is a text, and a blank sentence stays blank"
    answer = [text.strip() for text in answer]  # a blank may keep its spaces
    right_answer = [text.upper().strip() for text in sentences]
    if sorted(answer) == sorted(right_answer) and answer != right_answer:
        return "all there, but in another order: put each answer back in its place"
    if answer != right_answer:
        return "not each sentence got its own translation"
    lengths = [sorted(len(text.split()) for text in batch) for batch in seen]
    if sorted(lengths) != [[1, 1, 2, 2], [2, 5, 6, 7]]:
        return "short and long sentences share a batch: sort by length first"
    return "correct"


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
def check_split(function: Answer) -> str:
    """`my_split(sentences, held_out)`: names for training, names for the test."""
    try:
        answer = function(list(TOY), {"klein Hund", "rot Ball"})
        if not isinstance(answer, list | tuple) or len(answer) != 2:
            return "return two lists: training sentences and test sentences"
        train, test = (list(part) for part in answer)
        function(list(OTHER), {"alt Haus"})
    except InputError:
        return "all words occur in training, in other company: no reason to raise"
    names = {name for name, _ in TOY}
    if not all(isinstance(name, str) for name in train + test):
        return "give the names of the sentences, without their combinations"
    if set(train) & set(test):
        return "a sentence stands in both lists"
    if {"s1", "s2", "s3", "s5"} & set(train):
        return "training has a held-out combination: look at all those of a sentence"
    if {"s4", "s6", "s7", "s8"} & set(test):
        return "a test sentence uses nothing that is held out"
    if set(train) | set(test) != names:
        return "a sentence is lost: is one without any combination training, too?"
    for what, (sentences, held_out) in LOST.items():
        try:
            function(list(sentences), set(held_out))
        except InputError:
            continue
        except ValueError:
            return "raise InputError, so that the caller knows: the input was wrong"
        return what
    return "correct"
