"""Trees of the grammar's sentences, and their scores, against trees worked by hand."""

import re

import pytest

from annotated_transformer.constituents import (
    Bracketer,
    Parsed,
    leaves,
    parsed,
    parsing_scores,
    spans,
    treebank,
)
from annotated_transformer.errors import InputError
from annotated_transformer.grammar import VERBS, Sampler, grammar_corpus

SMALL = "(S (NP XX XX )NP (VP XX (NP XX )NP )VP )S".split()


def drawn(seed, n):
    """Sentences and their trees."""
    bracketer = Bracketer(seed)
    pairs = ((bracketer.sentence(), bracketer.tree) for _ in range(n))
    return [(pair, tree) for pair, tree in pairs if pair]


TREES = drawn(11, 15_000)


def test_brackets_change_nothing_that_is_drawn():
    sampler, bracketer = Sampler(3), Bracketer(3)
    for _ in range(500):
        assert sampler.sentence() == bracketer.sentence()
        assert sampler.used == bracketer.used


def test_every_tree_is_well_formed_and_its_words_are_the_sentence():
    for (_, english), tree in TREES[:1500]:
        row = parsed(tree)
        spelled = english.lower().replace(",", " ,").replace(".", " .").split()
        assert row.words == spelled
        assert leaves(row.tree) == len(spelled)
        assert spans(row.tree)["S", 0, len(spelled)] == 1


@pytest.mark.parametrize(
    ("part", "why"),
    [
        ("(S (NP a/DT man/NN )NP (VP is/VBZ (VP", "a subject"),
        ("man/NN )NP (PP in/IN (NP a/DT", "a man in a coat is one phrase"),
        ("(VP sitting/VBG (PP on/IN (NP", "the object of a preposition"),
        ("(VP picking/VBG (PRT up/RP )PRT (NP", "a particle stands alone"),
        ("(VP falling/VBG (ADJP asleep/JJ )ADJP", "asleep is an adjective"),
        ("(NP he/PRP )NP (VP is/VBZ (ADJP tired/JJ )ADJP )VP )S )SBAR", "a reason"),
        ("(PP in/IN (NP the/DT morning/NN )NP )PP", "a time"),
        ("(PP at/IN (NP night/NN )NP )PP", "a time without an article"),
        ("(PP in/IN front/NN of/IN (NP", "a long preposition"),
        ("(NP two/CD old/JJ apple/JJ trees/NNS )NP", "a number, and a compound"),
        ("(SBAR who/WP (S (VP are/VBP (VP", "a relative clause"),
        ("(SBAR that/WDT (S (VP is/VBZ (VP", "of an animal"),
    ],
)
def test_constituents_are_those_of_english(part, why):
    assert any(part in tree for _, tree in TREES), why


def test_every_second_word_of_a_verb_is_bracketed():
    found = " ".join(tree for _, tree in TREES)
    for verb in VERBS:
        first, *rest = verb.english.split()
        if rest:
            opened = rf"{first}/VBG \((PRT|ADJP|PP) {'/.. '.join(rest)}/"
            assert re.search(opened, found), verb


def test_brackets_have_tags_inside_and_words_have_one_each():
    labels = {"S", "NP", "VP", "PP", "SBAR", "PRT", "ADJP"}
    for _, tree in TREES[:500]:
        for token in tree.split():
            assert token[1:] in labels if token[0] in "()" else token.count("/") == 1


def test_a_treebank_holds_the_corpus_in_its_order():
    corpus, bank = grammar_corpus(60, seed=4), treebank(60, seed=4)
    for split, pairs in corpus.items():
        assert [row.words[0] for row in bank[split]] == [
            english.lower().replace(",", " ,").split()[0] for _, english in pairs
        ]
        assert len(bank[split]) == len(pairs)
    first = corpus["test"][0][1].lower()
    assert " ".join(bank["test"][0].words).replace(" ,", ",")[:-2] + "." == first


def test_spans_count_words_and_nested_equals():
    assert spans(SMALL) == {
        ("S", 0, 4): 1,
        ("NP", 0, 2): 1,
        ("VP", 2, 4): 1,
        ("NP", 3, 4): 1,
    }
    assert spans("(NP (NP XX )NP )NP".split())["NP", 0, 1] == 2


@pytest.mark.parametrize(
    ("tree", "why"),
    [
        ("(S (NP XX )S", r"'\)S' closes \(NP"),
        (")S", r"'\)S' closes nothing"),
        ("(S XX )S XX", "'XX' stands after the end"),
        ("(S XX )S (S XX )S", r"'\(S' stands after the end"),
        ("(S (NP XX )NP", "1 brackets are open at the end"),
        ("XX XX", "'XX' stands after the end"),
        ("XX", "0 brackets are open"),
        ("", "0 brackets are open"),
    ],
)
def test_what_is_no_tree_says_why(tree, why):
    with pytest.raises(InputError, match=why):
        spans(tree.split())


def test_scores_are_those_worked_out_by_hand():
    # One wrong label and one bracket too many: 3 of 5 are right, of 4 wanted.
    answer = "(S (NP XX XX )NP (PP XX (NP (NP XX )NP )NP )PP )S".split()
    scores = parsing_scores([answer], [SMALL])
    assert (scores.precision, scores.recall) == (3 / 5, 3 / 4)
    assert scores.f1 == pytest.approx(2 / (5 / 3 + 4 / 3))
    assert (scores.exact, scores.well_formed) == (0, 1)
    perfect = parsing_scores([SMALL, SMALL], [SMALL, SMALL])
    assert set(perfect) == {1.0}


@pytest.mark.parametrize("broken", ["", "(S XX )S", "(S XX XX XX XX", "XX XX XX XX"])
def test_an_answer_that_is_no_tree_over_the_words_finds_nothing(broken):
    scores = parsing_scores([broken.split(), SMALL], [SMALL, SMALL])
    assert scores.recall == 0.5 and scores.precision == 1
    assert (scores.exact, scores.well_formed) == (0.5, 0.5)


def test_scores_need_a_tree_for_each_sentence():
    with pytest.raises(InputError, match="1 trees for 2 sentences"):
        parsing_scores([SMALL], [SMALL, SMALL])
    with pytest.raises(InputError, match="0 trees for 0 sentences"):
        parsing_scores([], [])


def test_parsed_parts_words_from_brackets():
    row = parsed("(S (NP A/DT dog/NN )NP ,/, ./. )S")
    assert row == Parsed(["a", "dog", ",", "."], "(S (NP DT NN )NP , . )S".split())
