"""Constituency trees of the grammar's English, and their scores (§6.3, chapter 19).

A tree is a row of tokens: "(NP" opens a constituent, ")NP" closes it, as in Vinyals et
al. 2015, whom the paper follows; in between, each word stands as its tag, such as "NN".
"""

import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

from annotated_transformer.errors import InputError
from annotated_transformer.grammar import (
    NUMBERS,
    TIMES,
    Noun,
    Pair,
    Phrase,
    Sampler,
    Verb,
    grammar_corpus,
)

# The tree of each pattern of the grammar: its English side, with brackets and tags.
CLAUSE, OTHER = "{S} (VP {V} {M} )VP", "(S {s} (VP {v} {m} )VP )S"
SUBORDINATE = f"(SBAR {{}}/IN {OTHER} )SBAR"
WHILE, BECAUSE = (SUBORDINATE.replace("{}", word) for word in ("while", "because"))
TREES = {
    "plain": f"(S {CLAUSE} ./. )S",
    "front": f"(S {{F}} ,/, {CLAUSE} ./. )S",
    "relative": "(S (NP {S} (SBAR {who} (S (VP {v} {m} )VP )S )SBAR )NP"
    " (VP {V} {M} )VP ./. )S",
    "while": f"(S {{S}} (VP {{V}} {{M}} {WHILE} )VP ./. )S",
    "while first": f"(S {WHILE} ,/, {CLAUSE} ./. )S",
    "because": f"(S {{S}} (VP {{V}} {{M}} {BECAUSE} )VP ./. )S",
}
# What follows the verb in "putting on", "falling asleep", "sitting on": a particle or
# an adjective is closed before the object, a preposition after it.
CLOSED = {"picking up": "PRT", "putting on": "PRT", "throwing away": "PRT"}
CLOSED |= {"falling asleep": "ADJP"}
# Tags of the Penn treebank: of single words, and of the others by their constituents.
TAGS = dict.fromkeys(("a", "an", "the"), "DT") | {"is": "VBZ", "are": "VBP"}
TAGS |= {english: "CD" for _, english in NUMBERS} | {"who": "WP", "that": "WDT"}
TAGS |= {"front": "NN"}
INSIDE = {"NP": "JJ", "PP": "IN", "VP": "VBG", "ADJP": "JJ", "PRT": "RP"}


def bracket(label: str, words: str) -> str:
    """Words, or trees, as one constituent; words that have no tag get one."""
    tokens = [
        token
        if set(token) & set("()/")
        else f"{token}/{TAGS.get(token, INSIDE[label])}"
        for token in words.split()
    ]
    return f"({label} {' '.join(tokens)} ){label}"


def plain(tree: str) -> str:
    """The words of a tree alone."""
    words = (t.split("/")[0] for t in tree.split() if t[0] not in "()")
    return " ".join(words)


def with_times(tree: str) -> str:
    """Put brackets around "in the morning", "at night" and the like."""
    for _, time in TIMES:
        preposition, *article, noun = time.split()
        phrase = bracket("NP", " ".join([*article, f"{noun}/NN"]))
        marked = bracket("PP", f"{preposition} {phrase}")
        tree = re.sub(rf"\b{time}\b", marked, tree)
    return tree


class Bracketer(Sampler):
    """Draws what a `Sampler` draws, and keeps the last sentence's tree.

    The grammar joins strings; here the English ones carry their brackets with them, and
    each word its tag: "(NP a/DT dog/NN )NP".
    """

    tree = ""

    def phrase(self, noun: Noun, case: str, is_plural: bool | None = None) -> Phrase:
        """A noun phrase: article, numbers, adjectives, noun."""
        phrase = super().phrase(noun, case, is_plural)
        german, english = phrase.words
        tagged = f"{english}/{'NNS' if phrase.is_plural else 'NN'}"
        return replace(phrase, words=(german, bracket("NP", tagged)))

    def dress(self, person: Phrase) -> Phrase:
        """A noun phrase that holds another, and what the person wears."""
        dressed = super().dress(person)
        if dressed is person:
            return person
        (german, english), (_, naked) = dressed.words, person.words
        wear = bracket("PP", english.removeprefix(naked).strip())
        return replace(dressed, words=(german, bracket("NP", f"{naked} {wear}")))

    def place(self, case: str) -> Pair:
        """A preposition and its noun phrase."""
        german, english = super().place(case)
        return german, bracket("PP", english)

    def object(self, verb: Verb, subject: Phrase) -> Pair:
        """The object; the preposition's constituent, which the verb opened, ends."""
        german, english = super().object(verb, subject)
        return german, english + " )PP" * ("(PP" in verb.english)

    def clause(self, pattern: str, verb: Verb, subject: Phrase) -> dict[str, Pair]:
        """A verb phrase: the object, the place and the time stand side by side.

        The auxiliary's phrase, around it, is part of the pattern.
        """
        first, *others = verb.english.split()
        if verb.english in CLOSED:
            first += f" {bracket(CLOSED[verb.english], *others)}"
        elif others:
            first += " (PP " + " ".join(f"{word}/IN" for word in others)
        parts = super().clause(pattern, replace(verb, english=first), subject)
        german, english = parts["M"]
        parts["M"] = german, bracket("VP", with_times(english))
        parts["F"] = parts["F"][0], with_times(parts["F"][1])
        auxiliary = parts["V"][1]
        parts["V"] = parts["V"][0], f"{auxiliary}/{TAGS[auxiliary]}"
        return parts

    def reason(self, verb: Verb, subject: Phrase) -> dict[str, Pair]:
        """A pronoun, and an adjective."""
        parts = super().reason(verb, subject)
        he, be, tired = (parts[name][1] for name in "svm")
        trees = bracket("NP", f"{he}/PRP"), f"{be}/{TAGS[be]}", bracket("ADJP", tired)
        return {n: (parts[n][0], t) for n, t in zip("svm", trees, strict=True)}

    def write(self, pattern: str, parts: dict[str, Pair]) -> Pair | None:
        """The sentence without brackets; its tree is kept."""
        english = {name: words[1] for name, words in parts.items()}
        if "who" in english:
            english["who"] += f"/{TAGS[english['who']]}"
        self.tree = " ".join(TREES[pattern].format_map(english).split())
        unmarked = {name: (words[0], plain(words[1])) for name, words in parts.items()}
        return super().write(pattern, unmarked)


class Parsed(NamedTuple):
    """A sentence and its tree, both as tokens; the tree has a tag for each word."""

    words: list[str]
    tree: list[str]


def treebank(size: int = 20_000, seed: int = 0) -> dict[str, list[Parsed]]:
    """The English sentences of `grammar_corpus`, by split, each with its tree.

    Words are in small letters; commas and the period are words, too.
    """
    corpus, bracketer = grammar_corpus(size, seed), Bracketer(seed)
    trees: dict[Pair, str] = {}
    wanted = {pair for pairs in corpus.values() for pair in pairs}
    while len(trees) < len(wanted):  # the same seed draws the same sentences
        pair = bracketer.sentence()
        if pair in wanted:
            trees.setdefault(pair, bracketer.tree)
    return {
        split: [parsed(trees[pair]) for pair in pairs]
        for split, pairs in corpus.items()
    }


def parsed(tree: str) -> Parsed:
    """Part a tree with words and tags into the words, and the tree with tags."""
    tokens = [token.split("/")[-1] for token in tree.split()]
    return Parsed(plain(tree).lower().split(), tokens)


Span = tuple[str, int, int]  # label, first word, word after the last


def spans(tree: Sequence[str]) -> Counter[Span]:
    """The constituents of a tree, and how often each occurs ((NP (NP ...)) has two).

    Raises InputError unless each bracket closes the last one open, and all the tree is
    in one pair of brackets.
    """
    found: Counter[Span] = Counter()
    opened: list[tuple[str, int]] = []
    words = 0
    for place, token in enumerate(tree):
        if place and not opened:
            raise InputError(f"{token!r} stands after the end of the tree")
        if token[0] == "(":
            opened.append((token[1:], words))
        elif token[0] != ")":
            words += 1
        elif opened and token[1:] == opened[-1][0]:
            label, start = opened.pop()
            found[label, start, words] += 1
        else:
            last = f"({opened[-1][0]}" if opened else "nothing"
            raise InputError(f"{token!r} closes {last}")
    if opened or not found:
        raise InputError(f"{len(opened)} brackets are open at the end of {len(tree)}")
    return found


def leaves(tree: Sequence[str]) -> int:
    """How many words a tree has."""
    return sum(token[0] not in "()" for token in tree)


class ParsingScores(NamedTuple):
    """Scores of many trees, each from 0 to 1."""

    f1: float  # of labeled brackets: the harmonic mean of the next two
    precision: float  # of the brackets in the answers, how many are right
    recall: float  # of the right brackets, how many were found
    exact: float  # trees that are right as a whole
    well_formed: float  # trees whose brackets fit, with a tag for each word


def parsing_scores(
    answers: Sequence[Sequence[str]], right: Sequence[Sequence[str]]
) -> ParsingScores:
    """Compare trees with the right ones; brackets are counted over all sentences.

    A bracket is right if label, first and last word are. An answer that is not a tree
    over the words of its sentence has no brackets: it finds none.
    """
    if not right or len(answers) != len(right):
        raise InputError(f"{len(answers)} trees for {len(right)} sentences")
    hits = ours = theirs = fitting = exact = 0
    for answer, tree in zip(answers, right, strict=True):
        wanted, found = spans(tree), Counter[Span]()
        if answer and leaves(answer) == leaves(tree):
            with suppress(InputError):
                found = spans(answer)
        hits += (found & wanted).total()
        ours, theirs = ours + found.total(), theirs + wanted.total()
        fitting, exact = fitting + bool(found), exact + (list(answer) == list(tree))
    precision, recall = hits / max(ours, 1), hits / theirs
    f1 = 2 * hits / (ours + theirs)
    return ParsingScores(
        f1, precision, recall, exact / len(right), fitting / len(right)
    )
