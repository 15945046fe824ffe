"""Byte-pair encoding by hand (chapter 13)."""

from collections import Counter
from itertools import pairwise
from typing import Any

SymbolPair = tuple[str, str]
Cuts = dict[str, list[str]]  # each word, and the symbols that it is cut into


def pair_counts(cuts: Cuts, frequency: dict[str, int]) -> Counter[SymbolPair]:
    """How often each two symbols stand side by side in the text."""
    counts: Counter[SymbolPair] = Counter()
    for word, symbols in cuts.items():
        for pair in pairwise(symbols):  # (first, second), (second, third), ...
            counts[pair] += frequency[word]
    return counts


def merge(symbols: list[str], pair: SymbolPair) -> list[str]:
    """Join the pair wherever it stands, from left to right."""
    merged: list[str] = []
    for symbol in symbols:
        if merged and (merged[-1], symbol) == pair:
            merged[-1] += symbol
        else:
            merged.append(symbol)
    return merged


def best_pair(counts: Counter[SymbolPair]) -> SymbolPair:
    """The most frequent; of equals, the shortest piece, then by the alphabet."""
    return min(counts, key=lambda p: (-counts[p], len("".join(p)), "".join(p)))


def learn_merges(
    frequency: dict[str, int], n_merges: int, choose: Any = best_pair
) -> tuple[list[tuple[SymbolPair, int]], Cuts]:
    """Byte-pair encoding (§5.1): each merge with its count, and the words cut so."""
    cuts, learned = {word: list(word) for word in frequency}, []
    for _ in range(n_merges):
        counts = pair_counts(cuts, frequency)
        pair = choose(counts)
        learned.append((pair, counts[pair]))
        cuts = {word: merge(symbols, pair) for word, symbols in cuts.items()}
    return learned, cuts


def cut_word(word: str, ranks: dict[str, int]) -> list[str]:
    """Cut a new word as SentencePiece does: the piece learned first is joined first."""
    symbols = list(word)
    while True:
        joined = [a + b for a, b in pairwise(symbols)]
        known = [piece for piece in joined if piece in ranks]
        if not known:
            return symbols
        i = joined.index(min(known, key=ranks.__getitem__))  # of equals, the leftmost
        symbols[i : i + 2] = [joined[i]]
