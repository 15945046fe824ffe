"""Byte-pair encoding, problem 3.1: merges learned and used."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import torch

from annotated_transformer.checks.common import (
    Function,
    Mistake,
    ask,
    compare,
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
        f"merges 1 to 6 should be {right}, not {found}: is each new symbol used like "
        "any other?",
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
        f"with ties, the merges should be {right}, not {found}",
    )


def _end(function: Function, seed: int) -> None:
    word = "ab" if seed == 0 else "pqrstuvw"[: 3 + seed % 4]
    try:
        found = _merges_of(function, {word: 3}, 50)
    except (ValueError, IndexError) as error:
        raise Mistake(
            f"nothing is left to merge, and it fails ({error}): stop there"
        ) from None
    rare = {word: 1}  # a pair that occurs once is a pair
    if len(found) == len(word) and len(_merges_of(function, rare, 50)) < len(word):
        raise Mistake("it stops at pairs that occur once: stop when NO pair is left")
    need(
        len(found) == len(word),
        f"{word!r} alone has {len(word)} merges, not {len(found)}: its letters and '_' "
        "become one symbol, and nothing is left",
    )


def check_segment(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`segment(word, merges)`: a word cut by the merges, in the order learned."""
    return verdict(function, part, seed, order=_order)


def cut_in_order(word: str, merges: Iterable[Pair]) -> list[str]:
    """Each merge in its turn, from left to right."""
    symbols = (*word, END)
    for pair in merges:
        symbols = join(symbols, pair)
    return list(symbols)


def cut_longest_first(word: str, merges: Iterable[Pair]) -> list[str]:
    """A wrong version: the longest known symbol that fits, and so on."""
    pieces, rest, known = [], word + END, {a + b for a, b in merges}
    while rest:
        n = max(i for i in range(1, len(rest) + 1) if i == 1 or rest[:i] in known)
        pieces.append(rest[:n])
        rest = rest[n:]
    return pieces


def _order(function: Function, seed: int) -> None:
    fixed = [("b", "c"), ("a", "b"), ("a", "a"), ("bc", "_")]
    learned = bpe_merges(random_words(seed, "abc"), 8)
    cases = [(word, fixed) for word in ("abc", "aaaa", "aaa", "abab")]
    cases += [(word, learned) for word in random_words(seed + 1, "abc", 6)]
    found = []
    for word, merges in cases:
        symbols = ask(function, word, merges)
        need(
            isinstance(symbols, list | tuple),
            f"return a list of symbols, not a {type(symbols).__name__}",
        )
        need(
            "".join(symbols) == word + END,
            f"{word!r} comes back as {''.join(symbols)!r}: the pieces of a word and "
            "its end mark '_' must join to the same text",
        )
        found.append(list(symbols))
    right = [cut_in_order(word, merges) for word, merges in cases]
    if found == right:
        return
    i = next(i for i in range(len(cases)) if found[i] != right[i])
    compare(
        found,
        right,
        (
            (
                [cut_in_order(word, merges[::-1]) for word, merges in cases],
                "the merges apply in the order learned: yours run backwards",
            ),
            (
                [cut_longest_first(word, merges) for word, merges in cases],
                "that is the longest match: merges apply in the order learned",
            ),
            ([[*word, END] for word, _ in cases], "nothing is joined"),
        ),
        f"{cases[i][0]!r} with {cases[i][1]} should be {right[i]}, not {found[i]}: "
        "every such pair is joined, from left to right, merge after merge",
    )
