"""Chapter 14: right answers in several styles; wrong ones, and what must be said."""

import math

import numpy as np
import torch

from annotated_transformer.errors import InputError


def interval(hits, n, *, z=1.96, pull=True, shrink=True):
    """Wilson's interval from counts, with z * z cases more, half of them hits."""
    extra = z * z if pull else 0
    middle = (hits + extra / 2) / (n + extra)
    spread = z * (hits * (n - hits) / n + z * z / 4) ** 0.5
    half = spread / (n + z * z) if shrink else spread / n
    return torch.tensor([middle - half, middle + half])


def clipped(hits, n):
    return tuple(np.clip(interval(hits, n).numpy(), 0, 1))


def normal(hits, n):
    p = hits / n
    half = 1.96 * math.sqrt(p * (1 - p) / n)
    return p - half, p + half


def undivided(hits, n, z=1.96):
    p = hits / n
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return p + z * z / (2 * n) - half, p + z * z / (2 * n) + half


def rootless(hits, n, z=1.96):
    p, wide = hits / n, 1 + z * z / n
    half = z * (p * (1 - p) / n + z * z / (4 * n * n))
    return (p + z * z / (2 * n) - half) / wide, (p + z * z / (2 * n) + half) / wide


def one_bracket_short(hits, n, z=1.96):
    p = hits / n
    half = z * math.sqrt(p * (1 - p) / n + z * z / 4 * n * n)
    return p + z * z / (2 * n) - half, p + z * z / (2 * n) + half


def in_batches(sentences, model, *, size=4, by=lambda text: len(text.split())):
    full = sorted(filter(str.strip, sentences), key=by, reverse=True)
    answers = {}
    for start in range(0, len(full), size):
        batch = full[start : start + size]
        answers |= dict(zip(batch, model(batch), strict=True))
    return tuple(answers.get(text, text) for text in sentences)


def by_index(sentences, model):
    order = [i for i, text in enumerate(sentences) if text.split()]
    order.sort(key=lambda i: sentences[i].count(" "))
    results = [""] * len(sentences)
    while order:
        now, order = order[:4], order[4:]
        for i, text in zip(now, model([sentences[i] for i in now]), strict=True):
            results[i] = text
    return results


def each_text_once(sentences, model, *, back=True):
    """The same sentence goes to the model once."""
    texts = [*dict.fromkeys(sentences)]
    found = dict(zip(texts, in_batches(texts, model), strict=True))
    return [found[text] for text in sentences] if back else [*found.values()]


def full_batches(sentences, model):
    order = [i for i, text in enumerate(sentences) if text.strip()]
    results = list(sentences)
    for start in range(0, len(order) - 3, 4):
        for i in order[start : start + 4]:
            results[i] = model([sentences[j] for j in order[start : start + 4]])[0]
    return results


def first_come(sentences, model):
    full = [text for text in sentences if text.strip()]
    outputs = []
    for start in range(0, len(full), 4):
        outputs += model(full[start : start + 4])
    return [outputs.pop(0) if text.strip() else "" for text in sentences]


def with_a_mistake_in_batches(sentences, model):
    sentences.sort(key=len)
    return first_come(sentences, model)


def hold_out(sentences, held_out, *, known=str.split, error=InputError):
    parts = [], []
    met = set()
    for name, combinations in sentences:
        held = not held_out.isdisjoint(combinations)
        parts[held].append(name)
        met.update(*map(known, () if held else combinations))
    for word in {word for both in held_out for word in known(both)}:
        if word not in met:
            raise error(f"nobody has met {word}")
    return parts


def as_sets(sentences, held_out):
    test = {name for name, combinations in sentences if combinations & held_out}
    words = set()
    for name, combinations in sentences:
        if name not in test:
            words |= {word for both in combinations for word in both.split(" ")}
    if not all(word in words for both in held_out for word in both.split(" ")):
        raise InputError("a word is lost")
    return {name for name, _ in sentences} - test, test


def in_text(sentences, held_out):
    train, test = hold_out(sentences, held_out, known=lambda both: ())
    text = " ".join(both for name, cs in sentences if name in train for both in cs)
    if not all(word in text for both in held_out for word in both.split()):
        raise InputError("a word is lost")
    return train, test


def of_all(sentences, held_out):
    words = {word for _, cs in sentences for c in cs - held_out for word in c.split()}
    if not all(word in words for both in held_out for word in both.split()):
        raise InputError("a word is lost")
    return hold_out(sentences, held_out, known=lambda both: ())


def first_alone(sentences, held_out):
    test = [name for name, cs in sentences if cs and min(cs) in held_out]
    return [name for name, _ in sentences if name not in test], test


def all_held_out(sentences, held_out):
    test = [name for name, cs in sentences if cs and cs <= held_out]
    return [name for name, _ in sentences if name not in test], test


def takes_out(sentences, held_out):
    for _, combinations in sentences:
        combinations -= held_out
    return [name for name, cs in sentences if cs], []


RIGHT = [
    ("check_wilson", interval),
    ("check_wilson", clipped),
    ("check_wilson", lambda h, n: interval(h, n).tolist()),
    ("check_batches", in_batches),
    ("check_batches", by_index),
    ("check_batches", each_text_once),
    ("check_batches", lambda s, m: [t.strip() and t for t in in_batches(s, m)]),
    ("check_split", hold_out),
    ("check_split", as_sets),
]
WRONG = [
    ("check_wilson", lambda h, n: None, "not done yet"),
    ("check_wilson", normal, "that is p ± z√(p(1-p)/n)"),
    ("check_wilson", undivided, "both the middle and the half width"),
    ("check_wilson", rootless, "where is the root"),
    ("check_wilson", one_bracket_short, "between 0 and 1"),
    ("check_wilson", lambda h, n: interval(h, n, pull=False), "the middle is p itself"),
    ("check_wilson", lambda h, n: interval(h, n, shrink=False), "half width, too"),
    ("check_wilson", lambda h, n: interval(h, n, z=1.645), "yours is 1.64"),
    ("check_wilson", lambda h, n: 100 * interval(h, n), "percents"),
    ("check_wilson", lambda h, n: interval(h, n).flip(0), "the lower end comes first"),
    ("check_wilson", lambda h, n: h / n, "give two numbers"),
    ("check_wilson", lambda h, n: interval(h, n).mean(), "give two numbers"),
    ("check_wilson", lambda h, n: interval(90, 100), "10 of 100"),
    ("check_wilson", lambda h, n: interval(min(h, 500), n), "700 of 1000"),
    ("check_wilson", lambda h, n: interval(h, n) * (h > 0), "wrong at the ends"),
    ("check_batches", lambda s, m: None, "not done yet"),
    (
        "check_batches",
        lambda s, m: in_batches(s, m, by=str),
        "short and long sentences",
    ),
    ("check_batches", lambda s, m: in_batches(s, m, by=len), "sort by length first"),
    ("check_batches", lambda s, m: in_batches(s, m, size=8), "more than 4"),
    ("check_batches", lambda s, m: in_batches(s, m, size=1), "8 calls for 8 sentences"),
    ("check_batches", lambda s, m: in_batches(s, m, size=3), "3 calls for 8 sentences"),
    ("check_batches", lambda s, m: [m([text])[0] for text in s], "a blank sentence"),
    (
        "check_batches",
        lambda s, m: [m(text) if text.strip() else "" for text in s],
        "the model takes a list of sentences",
    ),
    (
        "check_batches",
        lambda s, m: [t for t in in_batches(s, m) if t.strip()],
        "where are the blank ones",
    ),
    ("check_batches", lambda s, m: sorted(in_batches(s, m)), "put each answer back"),
    (
        "check_batches",
        lambda s, m: [t if t.strip() else None for t in in_batches(s, m)],
        "a blank sentence stays blank",
    ),
    ("check_batches", first_come, "short and long sentences"),
    (
        "check_batches",
        lambda s, m: each_text_once(s, m, back=False),
        "12 answers for 14",
    ),
    ("check_batches", full_batches, "each one once"),
    ("check_batches", with_a_mistake_in_batches, "changes sentences, which is the cal"),
    ("check_batches", lambda s, m: (by_index(s[:8], m) + s)[: len(s)], "last batch"),
    ("check_split", lambda s, h: None, "not done yet"),
    ("check_split", lambda s, h: hold_out(s, h, error=ValueError), "raise InputError"),
    (
        "check_split",
        lambda s, h: hold_out(s, h, known=lambda both: both.split()[1:]),
        "the adjective",
    ),
    ("check_split", lambda s, h: hold_out(s, h)[::-1], "have changed places"),
    ("check_split", lambda s, h: [hold_out(s, h)[0], []], "a sentence is lost"),
    ("check_split", lambda s, h: hold_out(s, h)[0], "return two lists"),
    ("check_split", lambda s, h: hold_out(s, h, known=lambda _: ()), "never met"),
    ("check_split", lambda s, h: hold_out([x for x in s if x[1]], h), "is lost"),
    ("check_split", in_text, "compare whole words"),
    ("check_split", of_all, "is not met in training"),
    ("check_split", first_alone, "look at all those of a sentence"),
    ("check_split", all_held_out, "look at all those of a sentence"),
    ("check_split", takes_out, "changes sentences, which is the caller's"),
    (
        "check_split",
        lambda s, h: ([x for x in s if not x[1] & h], [x for x in s if x[1] & h]),
        "give the names of the sentences",
    ),
]
