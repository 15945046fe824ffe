"""Checks of chapter 13, From text to batches: one for each exercise."""

from collections import Counter
from itertools import chain, pairwise
from typing import Any

from annotated_transformer.checks.common import Answer, exercise
from annotated_transformer.checks.problems.bpe import bpe_merges, join
from annotated_transformer.grammar import grammar_corpus
from annotated_transformer.special import EOS, PAD, UNK

__all__ = ["check_bytes", "check_pairs", "check_shorten", "check_unknown"]


@exercise
def check_unknown(function: Answer) -> str:
    """`my_unknown(encode, sentences)`: the percentage of unknown words."""
    known = {"a": 4, "b": 5}
    sentences = ["a b a b a b x", "y", "a z"]

    def encode(sentence: Any) -> Any:
        return [*(known.get(word, UNK) for word in sentence.split()), EOS]

    answer = function(encode, sentences)
    try:
        answer = float(answer)
    except (TypeError, ValueError):
        return f"return one number, not {type(answer).__name__}"
    for value, mistake in (
        (0.3, "that is a share: percent are a hundred times as many"),
        (300 / 13, "you count the end tokens as words"),
        (
            100 / 3 * (1 / 7 + 1 + 1 / 2),
            "each sentence counts alike: pool the words first",
        ),
        (
            100 / 3 * (1 / 8 + 1 / 2 + 1 / 3),
            "pool the words first; and leave out the ends",
        ),
        (100, "that is the share of sentences with an unknown word"),
        (70, "that is the share of known words"),
        (100 / 3, "that is the share among different ids: count every occurrence"),
        (25, "that is the share among different ids: count every occurrence"),
        (3, "that is how many there are, not their share"),
    ):
        if abs(answer - value) < 1e-3:
            return mistake
    return (
        "correct" if abs(answer - 30) < 1e-3 else f"3 of 10 words, but you say {answer}"
    )


def as_lists(pairs: Any) -> Any:
    """Pairs of anything, as pairs of lists."""
    return [tuple([int(i) for i in side] for side in pair) for pair in pairs]


@exercise
def check_shorten(function: Answer) -> str:
    """`my_shorten(pairs, longest)`: truncation that keeps the end token."""
    pairs = [([5, 6, 7, 8, EOS], [9, EOS]), ([5, 6, 7, EOS], [9, 8, 7, 6, 5, EOS])]
    before = [(list(src), list(tgt)) for src, tgt in pairs]
    answer = function(pairs, 4)
    try:
        answer = as_lists(answer)
    except TypeError:
        return "return a list of pairs, each of two lists of ids"
    if pairs != before:
        return "your function changed the lists that it was given: make new ones"
    if any(len(pair) != 2 for pair in answer):
        return "return a list of pairs, each of two lists of ids"
    if len(answer) < 2:
        return "a pair is missing: cut what is too long, don't drop it"
    sides = [side for pair in answer for side in pair]
    if sides[0] == [5, 6, 7, 8] or sides[3] == [9, 8, 7, 6]:
        return "the end token is gone: did you slice and nothing else?"
    if any(side.count(EOS) > 1 for side in sides):
        return "two end tokens: what was short enough had one already"
    if sides[3] == pairs[1][1]:
        return "is the target cut as well as the source?"
    if any(len(side) > 4 for side in sides):
        return "5 ids are more than 4: the end token needs a place, too"
    if sides[0] == [6, 7, 8, EOS]:
        return "you kept the last ids: a sentence should keep its beginning"
    if PAD in chain(*sides):
        return "there is padding: that is the work of collate, batch by batch"
    if sides[0] == [5, 6, EOS]:
        return "one id fewer than allowed: longest - 1 ids and the end"
    if sides[2] != [5, 6, 7, EOS] or sides[1] != [9, EOS]:
        return "what fits must stay as it is"
    right = [([5, 6, 7, EOS], [9, EOS]), ([5, 6, 7, EOS], [9, 8, 7, EOS])]
    if answer != right:
        return f"should be {right}, not {answer}"
    shortest = as_lists(function(pairs, 1))[0]
    return "correct" if shortest == ([EOS], [EOS]) else "try longest = 1"


@exercise
def check_pairs(function: Answer) -> str:
    """`my_encode(word, merges)`: a word cut by merges, in the order learned."""
    merges = [
        ("a", "b"),
        ("c", "d"),
        ("b", "c"),
        ("ab", "cd"),
        ("e", "e"),
        ("ab", "ab"),
        ("a", "bc"),
    ]
    cases = {
        "abcd": ["abcd"],
        "abc": ["ab", "c"],
        "bcd": ["b", "cd"],
        "abxab": ["ab", "x", "ab"],
        "eee": ["ee", "e"],
        "xyz": ["x", "y", "z"],
        "": [],
    }
    for word, right in cases.items():
        try:
            answer = function(word, list(merges))
        except IndexError:
            return "IndexError: each merge shortens the list that you walk along"
        if isinstance(answer, str):
            return "return a list of symbols, not one string"
        answer = list(answer)
        if "".join(answer) != word:
            return f"{word!r} came back as {''.join(answer)!r}: letters got lost"
        if answer == right:
            continue
        if answer == list(word):
            return f"{word!r} was not merged at all: is the result of a merge kept?"
        if word == "abc" and answer == ["abc"]:
            return "('ab', 'c') is not in the list: compare pairs, not what they spell"
        if word == "bcd" and answer == ["bc", "d"]:
            return "'bc' before 'cd': the order of learning counts, not the place"
        if word == "abcd" and answer == ["ab", "cd"]:
            return "merged symbols can be merged again: ('ab', 'cd') comes later"
        if word == "abcd" and answer == ["a", "bc", "d"]:
            return "you went through the merges from the last to the first"
        if word == "abxab" and answer in (["ab", "x", "a", "b"], ["a", "b", "x", "ab"]):
            return (
                "only one of two places was merged: a pair is merged wherever it occurs"
            )
        if word == "eee" and answer == ["e", "ee"]:
            return "walk from the left: of three equal letters the first two merge"
        return f"{word!r} should be {right}, not {answer}"
    corpus = {"▁sand": 5, "▁strand": 3, "▁hand": 4, "▁stand": 2, "▁landen": 1}
    pairs = bpe_merges(corpus, 9, mark=False)
    for word in ("▁sandstrand", "▁handstand", "▁land"):
        symbols = tuple(word)
        for pair in pairs:
            symbols = join(symbols, pair)
        if list(function(word, list(pairs))) != list(symbols):
            return f"wrong for {word!r} and nine merges that were learned"
    return "correct"


def learn_bytes(texts: Any, n: Any) -> Any:
    """Merges of bytes, learned from some texts, and the texts in these ids."""
    rows, merges = [list(text.encode()) for text in texts], {}
    for new in range(256, 256 + n):
        counts = Counter(pair for row in rows for pair in pairwise(row))
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges[best] = new
        for row in rows:
            i = 0
            while i < len(row) - 1:
                if (row[i], row[i + 1]) == best:
                    row[i : i + 2] = [new]
                i += 1
    return merges, rows


@exercise
def check_bytes(function: Answer) -> str:
    """`my_bytes(merges)`: encode and decode by merges of bytes."""
    texts = [german for german, _ in grammar_corpus(40)["train"][:20]]
    merges, rows = learn_bytes(texts, 60)
    made = function(dict(merges))
    if not isinstance(made, tuple | list) or len(made) != 2:
        return "return two functions: encode, decode"
    encode, decode = made
    try:
        spelled = list(encode("ä"))
    except Exception as error:
        return f"encode('ä') raised {type(error).__name__}: {error}"
    if not all(isinstance(i, int) for i in spelled):
        return f"ids are whole numbers of Python, not {type(spelled[0]).__name__}"
    if spelled == [228]:
        return "228 is the character's number: ids are its bytes, text.encode()"
    if list(encode("")) != []:
        return "the empty text has no ids, not even an end token"
    try:
        first = list(encode(texts[0]))
    except IndexError:
        return "IndexError: each merge shortens the list that you walk along"
    if first == list(texts[0].encode()):
        return "nothing was merged"
    if any(pair in merges for pair in pairwise(first)):
        return "a pair is left that could be merged: do you go on until there is none?"
    if [list(encode(text)) for text in texts] != rows:
        return "merged in another order than learned: the smallest new id goes first"
    try:
        umlaut = decode(list("ä".encode()))
    except UnicodeDecodeError:
        return "each byte was decoded alone: join all bytes, then decode once"
    if umlaut == "Ã¤":
        return "chr() of each byte: two bytes of one character must be decoded together"
    if umlaut != "ä":
        return f"the two bytes of 'ä' came back as {umlaut!r}: join first, then decode"
    try:
        text = decode(rows[0])
    except Exception as error:
        return f"decode raised {type(error).__name__}: can a merged id hold merged ids?"
    if text != texts[0]:
        return f"{texts[0][:20]!r} came back as {str(text)[:20]!r}"
    try:
        if decode([195]) != "\ufffd":
            return "half a character should become U+FFFD: errors='replace'"
    except UnicodeDecodeError:
        return "half a character must not raise: errors='replace'"
    wild = ["🐶 läuft", "Ångström", "你好", "\x00\t\n", "a" * 99]
    return "correct" if [decode(encode(x)) for x in wild] == wild else "a text is lost"
