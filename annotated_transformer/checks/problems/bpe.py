"""Byte-pair encoding: problem 3.1, and what the checks of chapter 13 share with it."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import torch

from annotated_transformer.checks.common import (
    Function,
    Mistake,
    ask,
    compare,
    errors_mean,
    need,
    seeded,
    verdict,
)

__all__ = ["check_merges", "check_segment"]

Pair = tuple[str, str]
END = "_"  # the mark at the end of a word


def pairs_of_words(words: dict[tuple[str, ...], int]) -> Counter[Pair]:
    """How often each pair of neighbors stands in the corpus."""
    counts: Counter[Pair] = Counter()
    for symbols, n in words.items():
        for pair in pairwise(symbols):
            counts[pair] += n
    return counts


def join(symbols: Sequence[str], pair: Pair) -> tuple[str, ...]:
    """Join each such pair, from left to right."""
    joined, i = [], 0
    while i < len(symbols):
        if tuple(symbols[i : i + 2]) == pair:
            joined.append(symbols[i] + symbols[i + 1])
            i += 2
        else:
            joined.append(symbols[i])
            i += 1
    return tuple(joined)


def bpe_merges(
    counts: dict[str, int],
    n_merges: int,
    choose: Callable[[Counter[Pair]], Pair] | None = None,
    *,
    weighted: bool = True,
    mark: bool = True,
) -> list[Pair]:
    """Learn merges; `choose` and the switches make the wrong versions we know."""
    words = {
        tuple(word) + ((END,) if mark else ()): n if weighted else 1
        for word, n in counts.items()
    }
    merges = []
    for _ in range(n_merges):
        pairs = pairs_of_words(words)
        if not pairs:
            break
        best = (choose or first_of_the_most_frequent)(pairs)
        merges.append(best)
        merged: Counter[tuple[str, ...]] = Counter()
        for symbols, n in words.items():
            merged[join(symbols, best)] += n
        words = dict(merged)
    return merges


def first_of_the_most_frequent(pairs: Counter[Pair]) -> Pair:
    """The most frequent pair; among equals, the first in the alphabet."""
    return min(pairs, key=lambda pair: (-pairs[pair], pair))


def random_words(seed: int, letters: str = "abcde", n: int = 14) -> dict[str, int]:
    """Made-up words and how often they occur."""
    g = seeded(seed)
    words: dict[str, int] = {}
    while len(words) < n:
        length = int(torch.randint(2, 7, (1,), generator=g))
        picks = torch.randint(len(letters), (length,), generator=g)
        word = "".join(letters[i] for i in picks.tolist())
        words[word] = int(torch.randint(1, 30, (1,), generator=g))
    return words


def check_merges(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`learn_merges(counts, n_merges)`: the pairs that BPE joins, in order (§5.1).

    Parts: "count" (no ties), "ties" (the first in the alphabet), "end" (nothing left).
    """
    return verdict(function, part, seed, count=_count, ties=_ties, end=_end)


def _merges_of(function: Function, counts: dict[str, int], n: int) -> list[Pair]:
    found = ask(function, counts, n)
    need(
        isinstance(found, list), f"return a list of pairs, not a {type(found).__name__}"
    )
    need(
        all(isinstance(pair, tuple) and len(pair) == 2 for pair in found),
        "each merge is a pair of strings, ('a', 'b'): not the joined symbol",
    )
    return found


def _count(function: Function, seed: int) -> None:
    for attempt in range(100):  # words without a tie on the way
        counts = random_words(1000 * seed + attempt)
        right = bpe_merges(counts, 6)
        late = bpe_merges(counts, 6, lambda p: max(p, key=lambda pair: (p[pair], pair)))
        by_type = bpe_merges(counts, 6, weighted=False)
        rare = bpe_merges(counts, 6, lambda p: min(p, key=lambda pair: (p[pair], pair)))
        bare = bpe_merges(counts, 6, mark=False)
        if right == late and right not in (by_type, rare, bare) and right[:6] != bare:
            break
    found = _merges_of(function, counts, 6)
    first = pairs_of_words({(*word, END): n for word, n in counts.items()})
    once = [pair for pair, _ in first.most_common(6)]
    compare(
        found,
        right,
        (
            (
                by_type,
                "each word counts once: a pair counts as often as its word occurs",
            ),
            (rare, "these are the RAREST pairs: take the most frequent"),
            (bare, "where is the end mark? Each word ends with '_'"),
            (
                right[:1] * 6,
                "the same pair each time: is it joined in the words, before you count "
                "again?",
            ),
            (once, "the pairs are counted only once: count again after each merge"),
            (right[:5], "one merge too few: n_merges are wanted"),
            (bpe_merges(counts, 7), "one merge too many: n_merges are wanted"),
            ([(b, a) for a, b in right], "the pairs are the wrong way round"),
        ),
        "counted anew after each merge: is each new symbol used like any other?",
    )


def _ties(function: Function, seed: int) -> None:
    letters = "klmn" if seed == 0 else "pqrstuv"[seed % 3 : seed % 3 + 4]
    a, b, c, d = list(letters)
    # Each pair as often as the others; neither end of the alphabet comes first.
    counts = {c + b: 5 + seed % 4, d + c: 5 + seed % 4, b + a: 5 + seed % 4}
    right = bpe_merges(counts, 2)
    found = _merges_of(function, counts, 2)
    compare(
        found,
        right,
        (
            (
                bpe_merges(counts, 2, lambda p: max(p, key=lambda x: p[x])),
                "a tie went to the pair that was seen first: the first in the alphabet "
                "wins, so that the order of the words does not matter",
            ),
            (
                bpe_merges(counts, 2, lambda p: max(p, key=lambda x: (p[x], x))),
                "a tie went to the LAST pair in the alphabet: the first one wins",
            ),
        ),
        "among pairs as frequent, the first in the alphabet wins",
    )


def _end(function: Function, seed: int) -> None:
    word = "ab" if seed == 0 else "pqrstuvw"[: 3 + seed % 4]
    stop = "nothing is left to merge, and it fails ({error}): stop there"
    with errors_mean(stop, ValueError, IndexError):
        found = _merges_of(function, {word: 3}, 50)
        nothing = _merges_of(function, {}, 2), _merges_of(function, {word: 3}, 0)
    rare = {word: 1}  # a pair that occurs once is a pair
    if len(found) == len(word) and len(_merges_of(function, rare, 50)) < len(word):
        raise Mistake("it stops at pairs that occur once: stop when NO pair is left")
    need(
        len(found) == len(word),
        f"{word!r} alone has {len(word)} merges, not {len(found)}: its letters and '_' "
        "become one symbol, and nothing is left",
    )
    need(nothing == ([], []), "no words, or n_merges = 0: no merges")


# Cut a word by merges


def cut_in_order(symbols: Sequence[str], merges: Iterable[Pair]) -> list[str]:
    """Each merge in its turn, from left to right."""
    for pair in merges:
        symbols = join(symbols, pair)
    return list(symbols)


def cut_from_the_right(symbols: Sequence[str], merges: Iterable[Pair]) -> list[str]:
    """A wrong version: of three equal letters the last two are joined."""
    back = cut_in_order(
        [symbol[::-1] for symbol in symbols[::-1]],
        [(b[::-1], a[::-1]) for a, b in merges],
    )
    return [symbol[::-1] for symbol in back[::-1]]


def cut_longest_first(symbols: Sequence[str], merges: Iterable[Pair]) -> list[str]:
    """A wrong version: the longest known symbol that fits, and so on."""
    pieces, rest, known = [], "".join(symbols), {a + b for a, b in merges}
    while rest:
        n = max(i for i in range(1, len(rest) + 1) if i == 1 or rest[:i] in known)
        pieces.append(rest[:n])
        rest = rest[n:]
    return pieces


def cut_by_spelling(symbols: Sequence[str], merges: Iterable[Pair]) -> list[str]:
    """A wrong version: neighbors that spell the merged symbol are joined, too."""
    symbols = list(symbols)
    for a, b in merges:
        i = 0
        while i < len(symbols) - 1:
            if symbols[i] + symbols[i + 1] == a + b:
                symbols[i : i + 2] = [a + b]
            i += 1
    return symbols


def cut_once(symbols: Sequence[str], merges: Iterable[Pair]) -> list[str]:
    """A wrong version: each merge joins the first such pair alone."""
    symbols = list(symbols)
    for pair in merges:
        if pair in (pairs := list(pairwise(symbols))):
            i = pairs.index(pair)
            symbols[i : i + 2] = ["".join(pair)]
    return symbols


def cut_by_place(symbols: Sequence[str], merges: Iterable[Pair]) -> list[str]:
    """A wrong version: the first pair of the word that is known, and so on."""
    symbols, known = list(symbols), set(merges)
    while places := [i for i, p in enumerate(pairwise(symbols)) if p in known]:
        symbols[places[0] : places[0] + 2] = ["".join(symbols[places[0] :][:2])]
    return symbols


def cut_until_one_is_missing(
    symbols: Sequence[str], merges: Iterable[Pair]
) -> list[str]:
    """A wrong version: it stops at the first merge that has no place."""
    for pair in merges:
        if pair not in pairwise(symbols):
            break
        symbols = join(symbols, pair)
    return list(symbols)


CUTS: list[tuple[Callable[[Sequence[str], list[Pair]], list[str]], str]] = [
    (lambda s, merges: list(s), "nothing is joined: is the result of a merge kept?"),
    (
        lambda s, merges: cut_in_order(s, merges[::-1]),
        "you went through the merges from the last to the first",
    ),
    (
        cut_longest_first,
        "that is the longest match: merges apply in the order learned",
    ),
    (
        cut_by_spelling,
        "compare pairs, not what they spell: ('ab', 'c') is not ('a', 'bc')",
    ),
    (cut_by_place, "the order of learning counts, not the place in the word"),
    (
        cut_once,
        "only one of two places was merged: a pair is merged wherever it occurs",
    ),
    (
        cut_from_the_right,
        "walk from the left: of three equal letters the first two merge",
    ),
    (
        lambda s, merges: cut_in_order(s, [p for p in merges if len("".join(p)) == 2]),
        "merged symbols can be merged again: ('ab', 'cd') comes later",
    ),
    (
        cut_until_one_is_missing,
        "a merge that finds no pair is passed over: go on with the next",
    ),
]
MERGES = [
    *(("a", "b"), ("c", "d"), ("b", "c"), ("ab", "cd")),
    *(("e", "e"), ("ab", "ab"), ("a", "bc")),
]


def need_cuts(function: Function, seed: int, mark: str = "") -> None:
    """Raise a Mistake unless words are cut by merges, in the order learned.

    `mark` is what ends a word.
    """
    fixed = [*MERGES, ("cd", mark)] if mark else MERGES
    learned = bpe_merges(random_words(seed, "abc"), 8, mark=bool(mark))
    words = "abcd abc bcd abxab ababab eee eeee xyz a".split()
    cases = [(word, fixed) for word in [*words, "", "ab" * 600]]
    cases += [(word, learned) for word in random_words(seed + 1, "abc", 6)]
    cases.append(("abcd", []))
    walk = "{error}: each merge shortens the list that you walk along"
    found = []
    for word, merges in cases:
        with errors_mean(walk, IndexError):
            symbols = ask(function, word, merges)
        kind = f"return a list of symbols, not a {type(symbols).__name__}"
        need(isinstance(symbols, list | tuple), kind)
        text, ends = "".join(symbols), f" and its end mark {mark!r}" if mark else ""
        need(
            text == word + mark,
            f"{word[:20]!r} comes back as {text[:20]!r}: the pieces of a word{ends} "
            "must join to the same text",
        )
        found.append(list(symbols))
    for i, (word, merges) in enumerate(cases):
        right = cut_in_order((*word, *mark), merges)
        if found[i] != right:
            for cut, message in CUTS:
                wrong = [cut((*word, *mark), merges) for word, merges in cases]
                need(found != wrong, message)
            every = "every such pair is joined, from left to right, merge after merge"
            wanted, ours = str(right)[:60], str(found[i])[:60]
            raise Mistake(f"{word[:20]!r} should be {wanted}, not {ours}: {every}")


def check_segment(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`segment(word, merges)`: a word cut by the merges, in the order learned."""
    return verdict(function, part, seed, order=_order)


def _order(function: Function, seed: int) -> None:
    need_cuts(function, seed, END)
