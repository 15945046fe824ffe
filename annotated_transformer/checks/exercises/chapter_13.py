"""Checks of chapter 13, From text to batches: one for each exercise."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import pairwise
from numbers import Integral
from typing import Any

from annotated_transformer.checks.common import (
    Answer,
    Mistake,
    compare,
    errors_mean,
    exercise,
    need,
    need_number,
)
from annotated_transformer.checks.problems.bpe import (
    Pair,
    cut_by_spelling,
    cut_from_the_right,
    cut_in_order,
    cut_once,
    need_cuts,
    pairs_of_words,
)
from annotated_transformer.grammar import grammar_corpus
from annotated_transformer.special import BOS, EOS, PAD, UNK

__all__ = [
    "check_bytes",
    "check_merge_step",
    "check_pairs",
    "check_shorten",
    "check_unknown",
]


def _encode(sentence: str) -> list[int]:
    known = {"a": 4, "b": 5, "c": 6, ".": 7}
    words = sentence.replace(".", " .").split()
    return [*(known.get(word, UNK) for word in words), EOS]


def _percent(sentences: list[str]) -> float:
    words = [i for sentence in sentences for i in _encode(sentence)[:-1]]
    return 100 * words.count(UNK) / len(words)


@exercise
def check_unknown(function: Answer) -> None:
    """`my_unknown(encode, sentences)`: the percentage of unknown words."""
    sentences = ["a b a b a b x", "y", "a z"]
    many = ["a b c " * n + "x y " * (n % 3) + "b" for n in range(1, 40)]
    for case, hint in (
        (sentences, "3 of 10 words"),
        (["a b", "c"], "nothing is unknown"),
        (["x y", "z"], "all is unknown"),
        (["x a b", "", "c c"], "a sentence without words"),
        (["a x.", "b."], "a period is cut off, and counts"),
        (many, "39 sentences of up to 122 words"),
    ):
        without = "a sentence without words fails ({error})"
        with errors_mean(without, ZeroDivisionError, IndexError):
            answer = need_number(function(_encode, case))
        compare(answer, _percent(case), _unknown_mistakes(case), hint)


def _unknown_mistakes(sentences: list[str]) -> Iterator[tuple[float, str]]:
    """What comes out by one mistake each, and its name."""
    ended = [_encode(sentence) for sentence in sentences]
    rows = [ids[:-1] for ids in ended]
    words = [i for row in rows for i in row]
    n, total, right = len(words), words.count(UNK), _percent(sentences)
    kinds = "that is the share among different ids: count every occurrence"
    yield right / 100, "that is a share: percent are a hundred times as many"
    yield 100 * total / (n + len(rows)), "you count the end tokens as words"
    blanks = sum(len(sentence.split()) for sentence in sentences)
    yield 100 * total / blanks, "count what `encode` returns: it may cut elsewhere, too"
    alike = "each sentence counts alike: pool the words first"
    ends = "pool the words first; and leave out the ends"
    for parts, message in ((rows, alike), (ended, ends)):
        shares = [row.count(UNK) / max(1, len(row)) for row in parts]
        yield 100 * sum(shares) / len(rows), message
    hurt = 100 * sum(UNK in row for row in rows) / len(rows)
    yield hurt, "that is the share of sentences with an unknown word"
    yield 100 - right, "that is the share of known words"
    yield 100 * total / max(1, n - total), "unknown ones divided by the known: by all"
    for ids in ({*words}, {*words, EOS}):
        yield 100 * (UNK in ids) / len(ids), kinds
    yield total, "that is how many there are, not their share"


Words = dict[str, list[str]]
STEPS: list[tuple[Words, dict[str, int]]] = [
    (
        {w: list(w) for w in ("▁hand", "▁land", "▁hund", "▁and")},
        {"▁hand": 2, "▁land": 3, "▁hund": 4, "▁and": 1},
    ),
    (
        {w: list(w) for w in ("xy", "abc", "abd", "eab")},
        {"xy": 9} | dict.fromkeys(("abc", "abd", "eab"), 1),
    ),
    ({"anan": list("anan"), "nab": list("nab")}, {"anan": 3, "nab": 1}),
    (
        {"oooo": list("oooo"), "ooo": list("ooo"), "no": list("no")},
        {"oooo": 5, "ooo": 1, "no": 2},
    ),
    (
        {"band": ["b", "a", "nd"], "hand": ["h", "a", "nd"], "rand": ["r", "an", "d"]},
        {"band": 5, "hand": 1, "rand": 1},
    ),
    ({"sand": ["s", "and"], "tsand": ["ts", "and"]}, {"sand": 5, "tsand": 1}),
]


@exercise
def check_merge_step(function: Answer) -> None:
    """`my_merge_step(cuts, frequency)`: the commonest pair, and the cuts after it."""
    for cuts, frequency in STEPS:
        answer = function(cuts, frequency)
        two = isinstance(answer, tuple | list) and len(answer) == 2
        need(two, "return two things: the pair, and the new cuts")
        pair = _need_best(answer[0], cuts, frequency)
        _need_joined(answer[1], pair, cuts)


def _need_best(pair: Any, cuts: Words, frequency: dict[str, int]) -> Pair:
    """The pair, once it is one of the most frequent ones."""
    strings = isinstance(pair, tuple | list) and len(pair) == 2
    strings = strings and all(isinstance(symbol, str) for symbol in pair)
    need(strings, f"a pair is two symbols, ('n', 'd'), not {pair!r:.40}")
    pair = (pair[0], pair[1])
    counts = pairs_of_words({tuple(s): frequency[word] for word, s in cuts.items()})
    best = max(counts.values())
    if counts[pair] == best:
        return pair
    need(pair in counts, f"{pair} stands nowhere: are the two the wrong way round?")
    once = pairs_of_words({tuple(symbols): 1 for symbols in cuts.values()})
    by_word = "each word counts once: a pair counts as often as its word occurs"
    need(once[pair] < max(once.values()), by_word)
    rare = "that is the RAREST pair: take the most frequent"
    need(counts[pair] > min(counts.values()), rare)
    raise Mistake(f"{pair} occurs {counts[pair]} times, another pair {best} times")


def cut_as_text(symbols: Sequence[str], merges: Sequence[Pair]) -> list[str]:
    """The mistake of joining in a text with blanks between the symbols."""
    text = " ".join(symbols)
    for left, right in merges:
        text = text.replace(f"{left} {right}", left + right)
    return text.split()


def _need_joined(found: Any, pair: Pair, cuts: Words) -> None:
    """Raise a Mistake unless this pair, and nothing else, was joined."""
    words = isinstance(found, dict) and found.keys() == cuts.keys()
    need(words, "the new cuts are a dictionary with the same words as the old ones")
    kind = "each word's cut is a list of symbols, not one text"
    need(not any(isinstance(symbols, str) for symbols in found.values()), kind)
    for word, symbols in found.items():
        text = "".join(symbols)
        need(text == word, f"the symbols of {word!r} now spell {text[:20]!r}")
    new = {word: list(symbols) for word, symbols in found.items()}
    for cut, message in (
        (lambda symbols, merges: list(symbols), "nothing is joined"),
        (cut_once, "only one of two places was joined: a pair is joined everywhere"),
        (cut_from_the_right, "walk from the left: of 'ooo' the first two are joined"),
        (cut_by_spelling, "compare pairs, not what they spell: ('an', 'd') is another"),
        (cut_as_text, "whole symbols, not text: 'ts and' holds 's and', too"),
    ):
        wrong = {word: cut(symbols, [pair]) for word, symbols in cuts.items()}
        right = {word: cut_in_order(symbols, [pair]) for word, symbols in cuts.items()}
        need(new == right or new != wrong, message)
    for word, symbols in cuts.items():
        right_word, hint = cut_in_order(symbols, [pair]), f"{word!r}, {pair} joined"
        compare(new[word], right_word, hint=hint)


Sides = list[tuple[list[int], list[int]]]
CUTS: list[tuple[Callable[[list[int], int], list[int]], str]] = [
    (lambda ids, n: ids, "nothing is cut"),
    (lambda ids, n: ids[:n], "the end token is gone: did you slice and nothing else?"),
    (
        lambda ids, n: ids if len(ids) <= n else ids[: n - 1],
        "the end token is gone: did you slice and nothing else?",
    ),
    (
        lambda ids, n: ids if len(ids) <= n else [*ids[:n], EOS],
        "5 ids are more than 4: the end token needs a place, too",
    ),
    (
        lambda ids, n: [*ids[: n - 1], EOS],
        "two end tokens: what was short enough had one already",
    ),
    (
        lambda ids, n: ids if len(ids) <= n else [*ids[: max(0, n - 2)], EOS],
        "one id fewer than allowed: longest - 1 ids and the end",
    ),
    (
        lambda ids, n: ids if len(ids) < n else [*ids[: max(0, n - 2)], EOS],
        "what fits must stay as it is: `longest` ids fit",
    ),
    (
        lambda ids, n: ids[-n:],
        "you kept the last ids: a sentence should keep its beginning",
    ),
    (
        lambda ids, n: (
            (ids if len(ids) <= n else [*ids[: n - 1], EOS]) + [PAD] * (n - len(ids))
        ),
        "there is padding: that is the work of collate, batch by batch",
    ),
    (
        lambda ids, n: ids if len(ids) <= n else [*ids[: n - 1], PAD],
        "the end token is EOS, not padding",
    ),
    (
        lambda ids, n: ids if len(ids) <= n else [*ids[: n - 1], BOS],
        "the end token is EOS, not BOS",
    ),
]


def _cut(ids: list[int], longest: int) -> list[int]:
    return ids if len(ids) <= longest else [*ids[: longest - 1], EOS]


@exercise
def check_shorten(function: Answer) -> None:
    """`my_shorten(pairs, longest)`: truncation that keeps the end token."""
    pairs = [([5, 6, 7, 8, EOS], [9, EOS]), ([5, 6, 7, EOS], [9, 8, 7, 6, 5, EOS])]
    long = [([*range(4, 4 + n), EOS], [*range(9, 1500, n), EOS]) for n in (1, 7, 1200)]
    for case, longest in (
        (pairs, 4),
        *((pairs, n) for n in (1, 2, 3, 5, 99)),
        (long, 1100),
        ([([EOS], [EOS])], 1),
        ([], 4),
    ):
        found = _sides(function(case, longest))
        right = [(_cut(src, longest), _cut(tgt, longest)) for src, tgt in case]
        if found != right:
            _name_cut(found, right, case, longest)


def _sides(answer: Any) -> Sides:
    """The answer as a list of pairs of lists."""
    wanted = "return a list of pairs, each of two lists of ids"
    with errors_mean(wanted, TypeError, ValueError):
        pairs = [tuple([int(i) for i in side] for side in pair) for pair in answer]
    need(all(len(pair) == 2 for pair in pairs), wanted)
    return [(src, tgt) for src, tgt in pairs]


def _name_cut(found: Sides, right: Sides, pairs: Sides, longest: int) -> None:
    """Raise a Mistake: these pairs were cut in another way."""
    missing = "a pair is missing: cut what is too long, don't drop it"
    need(len(found) >= len(pairs), missing)
    for cut, message in CUTS:
        need(found != [(cut(a, longest), cut(b, longest)) for a, b in pairs], message)
    sources, targets = ([pair[i] for pair in pairs] for i in (0, 1))
    both = "is the {} cut as well as the {}?"
    need([b for _, b in found] != targets, both.format("target", "source"))
    need([a for a, _ in found] != sources, both.format("source", "target"))
    swapped = "source and target have changed places"
    need(found != [(b, a) for a, b in right], swapped)
    compare(found, right, hint=f"longest = {longest}")


@exercise
def check_pairs(function: Answer) -> None:
    """`my_encode(word, merges)`: a word cut by merges, in the order learned."""
    need_cuts(function, 0)


Merges = dict[tuple[int, int], int]


def learn_bytes(texts: list[str], n: int) -> Merges:
    """Merges of bytes, learned from some texts."""
    rows, merges = [list(text.encode()) for text in texts], {}
    for new in range(256, 256 + n):
        counts = Counter(pair for row in rows for pair in pairwise(row))
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges[best] = new
        rows = [_merge(row, best, new) for row in rows]
    return merges


@cache
def _german() -> tuple[list[str], Merges]:
    """Some texts, and merges that were learned from them."""
    texts = [german for german, _ in grammar_corpus(40)["train"][:20]]
    return texts, learn_bytes(texts, 60)


def _merge(ids: list[int], pair: tuple[int, int], new: int) -> list[int]:
    """Each such pair as one id, from left to right."""
    ids, i = list(ids), 0
    while i < len(ids) - 1:
        if (ids[i], ids[i + 1]) == pair:
            ids[i : i + 2] = [new]
        i += 1
    return ids


def _bytes_in_order(text: str, merges: Merges) -> list[int]:
    ids = list(text.encode())
    for pair, new in merges.items():
        ids = _merge(ids, pair, new)
    return ids


def _bytes_by_place(text: str, merges: Merges) -> list[int]:
    """A wrong version: the first pair of the text that is known, and so on."""
    ids = list(text.encode())
    while places := [i for i, pair in enumerate(pairwise(ids)) if pair in merges]:
        i = places[0]
        ids[i : i + 2] = [merges[ids[i], ids[i + 1]]]
    return ids


@exercise
def check_bytes(function: Answer) -> None:
    """`my_bytes(merges)`: encode and decode by merges of bytes."""
    texts, learned = _german()
    wild = ["🐶 läuft", "Ångström", "你好", "\x00\t\n", "a" * 99, ""]
    wild.append(" ".join(texts[:6]))
    doubled = {(97, 97): 256, (256, 256): 257, (257, 98): 300}
    for merges in (learned, doubled, {}):
        made = function(merges)
        two = isinstance(made, tuple | list) and len(made) == 2
        need(two, "return two functions: encode, decode")
        encode, decode = map(Answer, made)
        _need_bytes(encode, merges, [*texts, *wild])
        _need_texts(decode, merges, [*texts, *wild])


ERRORS = ValueError, IndexError, KeyError, TypeError, AttributeError


def _need_bytes(encode: Answer, merges: Merges, texts: list[str]) -> None:
    """Raise a Mistake unless each text gets the ids of its merged bytes."""
    with errors_mean("encode('ä') raised {error}", *ERRORS):
        spelled = list(encode("ä"))
    whole = all(isinstance(i, Integral) for i in spelled)
    need(whole, "encode returns a list of ids, whole numbers of Python")
    number = "228 is the character's number: ids are its bytes, text.encode()"
    need(spelled != [228], number)
    with errors_mean("encode('') fails ({error}): the empty text has no ids", *ERRORS):
        need([*encode("")] == [], "the empty text has no ids, not even an end token")
    walk = "encode: {error}: each merge shortens the list that you walk along"
    with errors_mean(walk, IndexError):
        found = [list(encode(text)) for text in texts]
    right = [_bytes_in_order(text, merges) for text in texts]
    if found == right:
        return
    need(found != [list(text.encode()) for text in texts], "nothing was merged")
    pairs = {pair for ids in found for pair in pairwise(ids)}
    go_on = "a pair is left that could be merged: do you go on until there is none?"
    need(not pairs & merges.keys(), go_on)
    by_place = [_bytes_by_place(text, merges) for text in texts]
    order = "merged in another order than learned: the smallest new id goes first"
    need(found != by_place, order)
    i = next(i for i, ids in enumerate(found) if ids != right[i])
    ids, wanted, text = len(found[i]), len(right[i]), texts[i][:20]
    raise Mistake(f"{text!r} gets {ids} ids, {wanted} are right: {order}")


def _need_texts(decode: Answer, merges: Merges, texts: list[str]) -> None:
    """Raise a Mistake unless decoding gives the texts back, and some text for all."""
    alone = "each byte was decoded alone: join all bytes, then decode once"
    with errors_mean(alone, UnicodeDecodeError):
        umlaut = decode(list("ä".encode()))
    by_chr = "chr() of each byte: two bytes of one character must be decoded together"
    need(umlaut != "Ã¤", by_chr)
    first = f"the two bytes of 'ä' came back as {umlaut!r}: join first, then decode"
    need(umlaut == "ä", first)
    for text in texts:
        with errors_mean("decode: {error}: can a merged id hold merged ids?", *ERRORS):
            found = decode(_bytes_in_order(text, merges))
        need(found == text, f"{text[:20]!r} came back as {str(found)[:20]!r}")
    half = "half a character should become U+FFFD: errors='replace'"
    with errors_mean(half, UnicodeDecodeError):
        need(decode([195]) == decode([195, 65])[:1] == "\ufffd", half)
