"""Chapter 13: right answers in several styles; wrong ones, and what must be said."""

from collections import Counter
from functools import partial
from itertools import chain, pairwise
from statistics import mean

import numpy as np
import torch

from annotated_transformer.checks.problems.bpe import cut_by_spelling
from annotated_transformer.special import EOS, PAD, UNK


def unknown(encode, sentences, *, ends=False):
    ids = [i for s in sentences for i in encode(s) if ends or i != EOS]
    return 100 * ids.count(UNK) / len(ids)


def unknown_in_a_tensor(encode, sentences):
    ids = torch.tensor([*chain(*(encode(sentence)[:-1] for sentence in sentences))])
    return (ids == UNK).double().mean() * 100


def unknown_by_sentence(encode, sentences):
    rows = [encode(sentence)[:-1] for sentence in sentences]
    return 100 * mean(row.count(UNK) / len(row) for row in rows if row)


def unknown_hurt(encode, sentences):
    return np.mean([100 * (UNK in encode(sentence)) for sentence in sentences])


def unknown_kinds(encode, sentences):
    kinds = {i for sentence in sentences for i in encode(sentence)[:-1]}
    return 100 * (UNK in kinds) / len(kinds)


def unknown_by_blanks(encode, sentences):
    words = sum(len(sentence.split()) for sentence in sentences)
    return 100 * sum(encode(s).count(UNK) for s in sentences) / words


def unknown_first(encode, sentences):
    return unknown(encode, sentences[:1])


def shorten(pairs, longest):
    def cut(ids):
        return ids if len(ids) <= longest else [*ids[: longest - 1], EOS]

    return [(cut(src), cut(tgt)) for src, tgt in pairs]


def shorten_all_alike(pairs, longest):
    return [[ids[:-1][: longest - 1] + [EOS] for ids in pair] for pair in pairs]


def shorten_by_the_last(pairs, longest):
    new = []
    for pair in pairs:
        sides = [np.array(ids[:longest]) for ids in pair]
        for side in sides:
            side[-1] = EOS
        new.append(tuple(sides))
    return new


def shorten_in_place(pairs, longest):
    for pair in pairs:
        for ids in pair:
            if len(ids) > longest:
                ids[longest - 1 :] = [EOS]
    return pairs


def shorten_sources(pairs, longest):
    return [(shorten([(src, src)], longest)[0][0], tgt) for src, tgt in pairs]


def every_side(cut):
    return lambda pairs, longest: [
        (cut(src, longest), cut(tgt, longest)) for src, tgt in pairs
    ]


def encode(word, merges, *, once=False, back=False):
    symbols = list(word)
    for left, right in merges:
        i = len(symbols) - 2 if back else 0
        while 0 <= i < len(symbols) - 1:
            if (symbols[i], symbols[i + 1]) == (left, right):
                symbols[i : i + 2] = [left + right]
                if once:
                    break
            i += -1 if back else 1
    return symbols


def encode_symbols(symbols, pair, **how):
    return encode(symbols, [pair], **how)


def by_rank(word, merges):
    """As subword-nmt does: the first merge that has a pair, until none has."""
    symbols, ranks = list(word), {pair: i for i, pair in enumerate(merges)}
    while known := [pair for pair in pairwise(symbols) if pair in ranks]:
        best = min(known, key=ranks.get)
        new, i = [], 0
        while i < len(symbols):
            joined = tuple(symbols[i : i + 2]) == best
            new.append("".join(best) if joined else symbols[i])
            i += 1 + joined
        symbols = new
    return tuple(symbols)


def by_piece(word, merges):
    """As SentencePiece does: what two neighbors spell has the rank."""
    symbols, ranks = list(word), {}
    for i, pair in enumerate(merges):
        ranks.setdefault("".join(pair), i)
    while True:
        joined = [a + b for a, b in pairwise(symbols)]
        known = [piece for piece in joined if piece in ranks]
        if not known:
            return symbols
        i = joined.index(min(known, key=ranks.get))
        symbols[i : i + 2] = [joined[i]]


def by_replacing(word, merges):
    text = " ".join(word)
    for left, right in merges:
        text = text.replace(f"{left} {right}", left + right)
    return text.split()


def by_place(word, merges):
    symbols, i = list(word), 0
    while i < len(symbols) - 1:
        if (symbols[i], symbols[i + 1]) in merges:
            symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]
            i = 0
        else:
            i += 1
    return symbols


def past_the_end(word, merges):
    symbols = list(word)
    for pair in merges:
        for i in range(len(symbols) - 1):
            if (symbols[i], symbols[i + 1]) == pair:
                symbols[i : i + 2] = ["".join(pair)]
    return symbols


def doubled(word, merges):
    symbols = list(word)
    for left, right in merges:
        for i in range(len(symbols) - 1):
            if (symbols[i], symbols[i + 1]) == (left, right):
                symbols[i] = symbols[i + 1] = left + right
    return symbols


def forgetful(word, merges):
    merges.sort()
    return encode(word, merges)


def longest_match(word, merges):
    pieces, known = [], {a + b for a, b in merges}
    while word:
        end = next(k for k in range(len(word), 0, -1) if word[:k] in known or k == 1)
        pieces.append(word[:end])
        word = word[end:]
    return pieces


def merge_step(cuts, frequency, *, weigh=True, choose=max, join=encode_symbols):
    counts = Counter()
    for word, symbols in cuts.items():
        for pair in pairwise(symbols):
            counts[pair] += frequency[word] if weigh else 1
    pair = choose(counts, key=counts.get)
    return pair, {word: join(symbols, pair) for word, symbols in cuts.items()}


def merge_step_by_index(cuts, frequency):
    pairs = {p for symbols in cuts.values() for p in pairwise(symbols)}

    def count(pair):
        hits = (
            [*pairwise(cuts[word])].count(pair) * n for word, n in frequency.items()
        )
        return sum(hits)

    best = max(sorted(pairs), key=count)  # of equals, the first of the alphabet
    new = {}
    for word, symbols in cuts.items():
        new[word], i = [], 0
        while i < len(symbols):
            n = 2 if tuple(symbols[i : i + 2]) == best else 1
            new[word] += ["".join(symbols[i : i + n])]
            i += n
    return [list(best), new]


def merge_step_in_place(cuts, frequency):
    pair, new = merge_step(cuts, frequency)
    cuts.update(new)
    return pair, cuts


def merge_step_by_text(cuts, frequency):
    pair, _ = merge_step(cuts, frequency)
    (left, right), spaced = pair, {word: " ".join(s) for word, s in cuts.items()}
    joined = {w: s.replace(f"{left} {right}", left + right) for w, s in spaced.items()}
    return pair, {word: text.split() for word, text in joined.items()}


def spelled(merges):
    texts = {i: bytes([i]) for i in range(256)}
    for (left, right), new in merges.items():
        texts[new] = texts[left] + texts[right]
    return texts


def joined(merges):
    texts = spelled(merges)
    return lambda ids: b"".join(texts[i] for i in ids).decode(errors="replace")


def in_order(merges, *, letters=lambda text: [*text.encode()], places=None):
    def encode(text):
        ids = letters(text)
        for pair, new in list(merges.items())[:places]:
            i = 0
            while i < len(ids) - 1:
                if (ids[i], ids[i + 1]) == pair:
                    ids[i : i + 2] = [new]
                i += 1
        return ids

    return encode


def pair_by_pair(merges):
    def encode(text):
        ids = list(text.encode())
        while known := [pair for pair in pairwise(ids) if pair in merges]:
            best = min(known, key=merges.get)
            i = list(pairwise(ids)).index(best)
            ids[i : i + 2] = [merges[best]]
        return np.array(ids, dtype=int)

    def unfold(i):
        back = {new: pair for pair, new in merges.items()}
        return [*chain(*map(unfold, back[i]))] if i in back else [i]

    def decode(ids):
        return bytes(chain(*map(unfold, ids))).decode("utf-8", "replace")

    return [encode, decode]


def from_the_left(merges):
    def encode(text):
        ids = list(text.encode())
        while places := [i for i, p in enumerate(pairwise(ids)) if p in merges]:
            i = places[0]
            ids[i : i + 2] = [merges[ids[i], ids[i + 1]]]
        return ids

    return encode, joined(merges)


def strict(merges):
    texts = spelled(merges)
    return in_order(merges), lambda ids: b"".join(texts[i] for i in ids).decode()


def flat(merges):
    """It unfolds a merged id once."""
    back = {new: pair for pair, new in merges.items()}

    def decode(ids):
        found = chain(*(back.get(i, (i,)) for i in ids))
        return bytes(found).decode(errors="replace")

    return in_order(merges), decode


RIGHT = [
    ("check_unknown", unknown),
    ("check_unknown", unknown_in_a_tensor),
    ("check_shorten", shorten),
    ("check_shorten", shorten_all_alike),
    ("check_shorten", shorten_by_the_last),
    ("check_merge_step", merge_step),
    ("check_merge_step", merge_step_by_index),
    ("check_pairs", encode),
    ("check_pairs", by_rank),
    ("check_bytes", lambda merges: (in_order(merges), joined(merges))),
    ("check_bytes", pair_by_pair),
]
WRONG = [
    ("check_unknown", lambda *case: None, "not done yet"),
    ("check_unknown", lambda *case: unknown(*case) / 100, "that is a share"),
    ("check_unknown", lambda *case: unknown(*case, ends=True), "end tokens as words"),
    ("check_unknown", lambda *case: 100 - unknown(*case), "share of known words"),
    ("check_unknown", lambda *case: f"{unknown(*case)} %", "return one number"),
    ("check_unknown", unknown_by_sentence, "each sentence counts alike"),
    ("check_unknown", unknown_hurt, "sentences with an unknown word"),
    ("check_unknown", unknown_kinds, "count every occurrence"),
    ("check_unknown", unknown_first, "3 of 10 words"),
    ("check_unknown", lambda *case: round(unknown(*case)), "39 sentences"),
    ("check_unknown", unknown_by_blanks, "it may cut elsewhere"),
    ("check_shorten", lambda *case: ..., "not done yet"),
    ("check_shorten", every_side(lambda ids, n: ids[:n]), "the end token is gone"),
    ("check_shorten", every_side(lambda ids, n: ids[-n:]), "kept the last ids"),
    (
        "check_shorten",
        every_side(lambda ids, n: [*ids[:n], EOS] if len(ids) > n else ids),
        "5 ids are more than 4",
    ),
    ("check_shorten", every_side(lambda ids, n: [*ids[: n - 1], EOS]), "two end tok"),
    (
        "check_shorten",
        every_side(lambda ids, n: ids[:n] + [PAD] * (n - len(ids))),
        "should be ([5, 6, 7, 2], [9, 2]), not ([5, 6, 7, 8], [9, 2, 0, 0])",
    ),
    ("check_shorten", shorten_in_place, "changes pairs, which is the caller's"),
    ("check_shorten", shorten_sources, "is the target cut as well"),
    ("check_shorten", lambda pairs, n: shorten(pairs, n)[:1], "a pair is missing"),
    ("check_shorten", lambda pairs, n: shorten(pairs, 4), "longest = 1"),
    ("check_shorten", lambda pairs, n: [b for a, b in pairs], "each of two lists"),
    (
        "check_shorten",
        lambda pairs, n: [p for p in pairs if max(map(len, p)) <= n],
        "a pair is missing",
    ),
    ("check_merge_step", merge_step_by_text, "whole symbols, not text"),
    ("check_merge_step", lambda *case: None, "not done yet"),
    ("check_merge_step", lambda *case: merge_step(*case)[1], "return two things"),
    (
        "check_merge_step",
        lambda *case: ("".join(merge_step(*case)[0]), merge_step(*case)[1]),
        "a pair is two symbols, ('n', 'd'), not 'nd'",
    ),
    ("check_merge_step", partial(merge_step, weigh=False), "each word counts once"),
    ("check_merge_step", partial(merge_step, choose=min), "that is the RAREST pair"),
    (
        "check_merge_step",
        lambda *case: (merge_step(*case)[0][::-1], merge_step(*case)[1]),
        "the wrong way round",
    ),
    (
        "check_merge_step",
        lambda *case: (("h", "a"), merge_step(*case)[1]),
        "('h', 'a') occurs 2 times, another pair 10 times",
    ),
    (
        "check_merge_step",
        lambda cuts, n: (merge_step(cuts, n)[0], cuts),
        "nothing is joined",
    ),
    (
        "check_merge_step",
        partial(merge_step, join=partial(encode_symbols, once=True)),
        "only one of two places",
    ),
    (
        "check_merge_step",
        partial(merge_step, join=partial(encode_symbols, back=True)),
        "walk from the left",
    ),
    (
        "check_merge_step",
        partial(merge_step, join=lambda s, pair: cut_by_spelling(s, [pair])),
        "compare pairs, not what they spell",
    ),
    ("check_merge_step", merge_step_in_place, "changes cuts, which is the caller's"),
    (
        "check_merge_step",
        lambda *case: (merge_step(*case)[0], {"▁hand": ["▁hand"]}),
        "the same words as the old ones",
    ),
    (
        "check_merge_step",
        partial(merge_step, join=lambda s, pair: "".join(s)),
        "a list of symbols, not one text",
    ),
    (
        "check_merge_step",
        partial(merge_step, join=lambda s, pair: s[1:]),
        "the symbols of '▁hand' now spell 'hand'",
    ),
    (
        "check_merge_step",
        partial(merge_step, join=lambda s, pair: ["".join(s)]),
        "'▁hand', ('n', 'd') joined",
    ),
    ("check_pairs", lambda *case: None, "not done yet"),
    ("check_pairs", lambda word, m: word, "return a list of symbols"),
    ("check_pairs", lambda word, m: list(word), "nothing is joined"),
    ("check_pairs", lambda word, m: encode(word, m[::-1]), "the last to the first"),
    ("check_pairs", lambda *case: encode(*case, once=True), "only one of two places"),
    ("check_pairs", lambda *case: encode(*case, back=True), "walk from the left"),
    ("check_pairs", by_piece, "compare pairs, not what they spell"),
    ("check_pairs", by_place, "the order of learning counts"),
    ("check_pairs", longest_match, "that is the longest match"),
    ("check_pairs", past_the_end, "each merge shortens the list"),
    ("check_pairs", doubled, "must join to the same text"),
    ("check_pairs", forgetful, "changes merges, which is the caller's"),
    ("check_pairs", by_replacing, "should be"),
    ("check_pairs", lambda word, m: [*encode(word, m), "_"], "comes back as 'abcd_'"),
    ("check_bytes", lambda merges: None, "not done yet"),
    ("check_bytes", lambda merges: (lambda text: None, joined(merges)), "not done yet"),
    ("check_bytes", in_order, "return two functions"),
    (
        "check_bytes",
        lambda m: (in_order(m, letters=lambda text: [*map(ord, text)]), joined(m)),
        "228 is the character's number",
    ),
    (
        "check_bytes",
        lambda m: (lambda text: [*in_order(m)(text), EOS], joined(m)),
        "not even an end token",
    ),
    ("check_bytes", lambda m: (in_order({}), joined(m)), "nothing was merged"),
    ("check_bytes", lambda m: (in_order(m, places=9), joined(m)), "a pair is left"),
    ("check_bytes", from_the_left, "the smallest new id goes first"),
    ("check_bytes", strict, "half a character should become U+FFFD"),
    ("check_bytes", flat, "can a merged id hold merged ids"),
    (
        "check_bytes",
        lambda m: (in_order(m), lambda ids: "".join(joined(m)([i]) for i in ids)),
        "join first, then decode",
    ),
    (
        "check_bytes",
        lambda m: (in_order(m), lambda ids: "".join(map(chr, ids))),
        "two bytes of one character",
    ),
    (
        "check_bytes",
        lambda m: (in_order(m), lambda ids: joined(m)(ids).strip()),
        "came back as",
    ),
]
