"""The built-in corpus, checked by a second grammar of German that was written apart.

`Reader` reads each German sentence from the left, demands every article, ending and
verb position of school grammar, and translates as it goes: the English must be that.
"""

import os
import random
import subprocess
import sys
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotated_transformer.errors import InputError
from annotated_transformer.grammar import HELD_OUT, MAX_SIZE, Sampler, grammar_corpus

Nominal = tuple[str, str, str]  # noun, its case and gender (or p for plural), English

NOUNS = {
    "m": """
        Mann Männer man men, Polizist Polizisten policeman policemen,
        Junge Jungen boy boys, Spieler Spieler player players, Hund Hunde dog dogs,
        Affe Affen monkey monkeys, Vogel Vögel bird birds, Ball Bälle ball balls,
        Korb Körbe basket baskets, Koffer Koffer suitcase suitcases,
        Regenschirm Regenschirme umbrella umbrellas, Brief Briefe letter letters,
        Apfel Äpfel apple apples, Mantel Mäntel coat coats, Tisch Tische table tables,
        Stuhl Stühle chair chairs, Baum Bäume tree trees, Zaun Zäune fence fences,
        Tee - tea -, Park - park -, Garten - garden -, Wald - forest -,
        Strand - beach -, See - lake -, Spielplatz - playground -
    """,
    "f": """
        Frau Frauen woman women, Lehrerin Lehrerinnen teacher teachers,
        Kuh Kühe cow cows, Katze Katzen cat cats, Puppe Puppen doll dolls,
        Kiste Kisten box boxes, Zeitung Zeitungen newspaper newspapers,
        Birne Birnen pear pears, Tomate Tomaten tomato tomatoes,
        Jacke Jacken jacket jackets, Bank Bänke bench benches, Milch - milk -,
        Stadt - city -, Straße - street -, Brücke - bridge -
    """,
    "n": """
        Kind Kinder child children, Mädchen Mädchen girl girls,
        Pferd Pferde horse horses, Schaf Schafe sheep sheep, Seil Seile rope ropes,
        Buch Bücher book books, Hemd Hemden shirt shirts, Auto Autos car cars,
        Haus Häuser house houses, Wasser - water -, Dorf - village -, Ufer - shore -
    """,
}
DRINKS = ("Tee", "Milch", "Wasser")
MEN, WOMEN = ("Mann", "Junge", "Polizist", "Spieler"), ("Frau", "Lehrerin", "Mädchen")
PARTS = {"Holz": "wooden", "Metall": "metal", "Winter": "winter", "Apfel": "apple"}
PARTS |= {"Fußball": "soccer", "Tennis": "tennis"}
ADJECTIVES = {"klein": "little", "groß": "big", "alt": "old", "jung": "young"}
ADJECTIVES |= {"neu": "new", "müd": "tired", "schön": "beautiful", "frisch": "fresh"}
ADJECTIVES |= {"kalt": "cold", "rot": "red", "blau": "blue", "grün": "green"}
DICTIONARY = {"müd": "müde"}
ADJECTIVES |= {"schwarz": "black", "weiß": "white", "rosa": "pink", "blond": "blond"}
NUMBERS = {"zwei": "two", "drei": "three", "vier": "four"}
# Every case, with gender or plural, in which an article can stand.
DEFINITE = {"der": "nom m, dat f", "die": "nom f, acc f, nom p, acc p"}
DEFINITE |= {"das": "nom n, acc n", "den": "acc m, dat p", "dem": "dat m, dat n"}
INDEFINITE = {"ein": "nom m, nom n, acc n", "eine": "nom f, acc f", "einen": "acc m"}
INDEFINITE |= {"einem": "dat m, dat n", "einer": "dat f"}
ARTICLES = {word: slots.split(", ") for word, slots in (DEFINITE | INDEFINITE).items()}
VERBS = {
    "schläft": "schlafen sleeping", "spielt": "spielen playing",
    "läuft": "laufen running", "tanzt": "tanzen dancing", "singt": "singen singing",
    "lacht": "lachen laughing", "weint": "weinen crying",
    "schläft ein": "schlafen falling asleep", "sitzt": "sitzen sitting",
    "wartet": "warten waiting", "steht": "stehen standing", "wirft": "werfen throwing",
    "hält": "halten holding", "trägt": "tragen carrying", "isst": "essen eating",
    "frisst": "fressen eating", "trinkt": "trinken drinking", "kauft": "kaufen buying",
    "liest": "lesen reading", "malt": "malen painting", "füttert": "füttern feeding",
    "jagt": "jagen chasing", "beobachtet": "beobachten watching",
    "repariert": "reparieren repairing", "hebt auf": "heben picking up",
    "zieht an": "ziehen putting on", "wirft weg": "werfen throwing away",
    "ruft an": "rufen calling", "schaut an": "schauen looking at",
}  # fmt: skip
PREFIXES = ("ein", "auf", "an", "weg")
SINGULAR = {plural.split()[0]: verb.split()[0] for verb, plural in VERBS.items()}
SINGULAR |= {singular: singular for singular in SINGULAR.values()}
# What else a preposition means after its verb, and in which case.
GOVERNED = {("sitzt", "auf"): ("dat", "on"), ("wartet", "auf"): ("acc", "for")}
GOVERNED |= {("steht", "neben"): ("dat", "next to"), ("spielt", "mit"): ("dat", "with")}
TIMES = {"am Morgen": "in the morning", "am Abend": "in the evening"}
TIMES |= {"in der Nacht": "at night", "im Sommer": "in summer"}
FUSED = {"im": "in dem", "am": "an dem", "ins": "in das", "ans": "an das"}
INTO = {"auf": "onto", "in": "into", "an": "to"}
PLACES = {"in": "Park Garten Wald Dorf Stadt", "an": "Strand Ufer See", "mit": ""}
PLACES |= {"auf": "Straße Spielplatz Brücke", "hinter": "Baum Zaun Tisch Stuhl"}
PLACES |= {"vor": "Haus Auto Bank", "neben": ""}
PLACES = {preposition: nouns.split() for preposition, nouns in PLACES.items()}
PLACE_ENGLISH = {"in": "in", "auf": "on", "hinter": "behind", "vor": "in front of"}
PREPOSITIONS = {"auf", "neben", "mit", "in", "an", "hinter", "vor", *FUSED}
REASONS = {"müde": "tired", "hungrig": "hungry", "durstig": "thirsty"}
REASONS |= {"glücklich": "happy", "traurig": "sad"}
WORN = ("Hemd", "Jacke", "Mantel")


def noun_forms() -> dict[str, list[Nominal]]:
    """Return what each form can be."""
    forms: dict[str, list[Nominal]] = {}
    for gender, nouns in NOUNS.items():
        for noun in nouns.split(","):
            singular, plural, english, many = noun.split()
            oblique = plural if singular in ("Junge", "Affe", "Polizist") else singular
            dative = plural if plural.endswith(("n", "s")) else plural + "n"
            slots = [f"nom {gender}", f"acc {gender}", f"dat {gender}"]
            one = zip(slots, (singular, oblique, oblique), [english] * 3, strict=True)
            slots = ["nom p", "acc p", "dat p"]
            more = zip(slots, (plural, plural, dative), [many] * 3, strict=True)
            for slot, form, meaning in [*one, *more]:
                forms.setdefault(form, []).append((singular, slot, meaning))
    compounds = {
        part + form.lower(): [
            (noun, slot, f"{english} {e}") for noun, slot, e in readings
        ]
        for part, english in PARTS.items()
        for form, readings in forms.items()
    }
    return compounds | forms


FORMS = noun_forms()


@cache
def ending(article: str, slot: str) -> str:
    """Return the adjective's ending after an article, or after none."""
    if article in DEFINITE:
        return "e" if slot in ("nom m", "nom f", "nom n", "acc f", "acc n") else "en"
    if article in INDEFINITE:
        bare = {"nom m": "er", "nom n": "es", "acc n": "es", "nom f": "e", "acc f": "e"}
        return bare.get(slot, "en")
    der = next(word for word, slots in DEFINITE.items() if slot in slots)
    return {"der": "er", "die": "e", "das": "es", "den": "en", "dem": "em"}[der]


def stem(adjective: str, ending: str) -> str:
    """Return the stem where the adjective has the ending, and "" where it does not."""
    if adjective == "rosa":  # the only one that never has an ending
        return adjective
    found = adjective.removesuffix(ending)
    return found if found in ADJECTIVES and found != "rosa" else ""


class Reader:
    """Reads one clause after the other; every demand is an assertion."""

    def __init__(self):
        self.used: set[str] = set()

    def noun_phrase(self, words: list[str], cases: str) -> Nominal:
        """Take a noun phrase off the front, in one of some cases."""
        article = words.pop(0) if words[0] in ARTICLES else ""
        number = words.pop(0) if words[0] in NUMBERS else ""
        adjectives = []
        while words[0][0].islower():
            adjectives.append(words.pop(0))
        form = words.pop(0)
        readings = []
        for lemma, slot, english in FORMS[form]:
            stems = [stem(word, ending(article, slot)) for word in adjectives]
            bare = not article and (lemma in DRINKS or slot[-1] == "p")
            fits = bare or slot in ARTICLES.get(article, [])
            if slot[:3] in cases and fits and all(stems):
                readings.append((lemma, slot, english, stems))
        assert len({reading[1:3] for reading in readings}) == 1, (form, readings)
        lemma, slot, english, stems = readings[0]
        assert not number or slot[-1] == "p", form
        # Without any of them, "Koffer" would be one and many.
        assert article or number or adjectives or lemma in DRINKS, form
        self.used |= {f"{DICTIONARY.get(word, word)} {lemma}" for word in stems}
        meanings = [ADJECTIVES[word] for word in stems]
        english = " ".join(filter(None, [NUMBERS.get(number), *meanings, english]))
        if article in INDEFINITE:
            english = f"an {english}" if english[0] in "aeiou" else f"a {english}"
        return lemma, slot, f"the {english}" if article in DEFINITE else english

    def prepositional(self, words: list[str], verb: str) -> tuple[str, str]:
        """Take a prepositional phrase off the front: its role and its English."""
        for german, english in TIMES.items():
            if " ".join(words).startswith(german):
                del words[: len(german.split())]
                return "time", english
        assert not " ".join(words).startswith(tuple(FUSED.values())), words
        words[:1] = FUSED.get(words[0], words[0]).split()
        preposition = words.pop(0)
        noun = next(word for word in words if word[0].isupper())
        place = any(lemma in PLACES[preposition] for lemma, _, _ in FORMS[noun])
        cases, meaning = GOVERNED.get((verb, preposition), ("dat", preposition))
        if place:
            cases = "dat acc" if preposition in INTO else "dat"
        lemma, slot, english = self.noun_phrase(words, cases)
        if place and slot.startswith("acc"):
            assert verb == "läuft"
            return "way", f"{INTO[preposition]} {english}"
        if place:
            where = {"Strand": "on", "Ufer": "on", "See": "at"}.get(lemma)
            return "place", f"{where or PLACE_ENGLISH[preposition]} {english}"
        if preposition == "in":
            assert lemma in WORN
            return "clothes", f"in {english}"
        assert (verb, preposition) in GOVERNED
        return "object", f"{meaning} {english}"

    def subject(self, words: list[str], verb: str = "") -> Nominal:
        """Take a nominative off the front, with the clothes that follow it."""
        lemma, slot, english = self.noun_phrase(words, "nom")
        rest = list(words)
        if rest and rest[0] in ("in", "im"):
            role, clothes = self.prepositional(rest, verb)
            if role == "clothes":
                words[:] = rest
                english = f"{english} {clothes}"
        return lemma, slot, english

    def predicate(
        self, subject: Nominal, finite: str, prefix: str, words: list[str]
    ) -> str:
        """Read what stands between verb and prefix: time, place, object."""
        slot = subject[1]
        verb = SINGULAR[finite]
        assert (finite == verb) == (slot[-1] != "p"), (subject, finite)
        meaning = VERBS[f"{verb} {prefix}".strip()].split(" ", 1)[1]
        roles: dict[str, str] = {}
        while words:
            if words[0] in PREPOSITIONS:
                role, english = self.prepositional(words, verb)
            else:
                lemma, _, english = self.noun_phrase(words, "acc")
                role = "object"
                if verb == "trägt" and lemma in WORN:
                    meaning = "wearing"
            assert role not in roles, role
            roles[role] = english
        order = [r for r in ("time", "place", "way", "object") if r in roles]
        assert list(roles) == order, roles
        be = "are" if slot[-1] == "p" else "is"
        english = [roles.get(role, "") for role in ("object", "way", "place", "time")]
        return " ".join(" ".join([be, meaning, *english]).split())

    def main(
        self, words, *, begun: bool = False, subject: Nominal | None = None
    ) -> str:
        """Read a main clause: something comes first, if not before, then the verb."""
        front = ""
        if not begun and words[0] in PREPOSITIONS:
            role, front = self.prepositional(words, "")
            assert role in ("time", "place")
        elif not begun:
            subject = self.subject(words)
        finite = words.pop(0)
        subject = subject or self.subject(words, SINGULAR[finite])
        prefix = words.pop() if words and words[-1] in PREFIXES else ""
        english = f"{subject[2]} {self.predicate(subject, finite, prefix, words)}"
        return f"{front}, {english}" if front else english

    def subordinate(self, words: list[str], subject: Nominal | None = None) -> str:
        """Read a subordinate clause: the verb is last, with its prefix back on."""
        last = words.pop()
        prefix = next((p for p in PREFIXES if last.startswith(p)), "")
        finite = last.removeprefix(prefix)
        self.used.add(f"... {prefix}{SINGULAR[finite]}")
        subject = subject or self.subject(words, SINGULAR[finite])
        return f"{subject[2]} {self.predicate(subject, finite, prefix, words)}"

    def sentence(self, german: str) -> str:
        """Translate a sentence."""
        assert german[0].isupper() and german[-1] == "."
        german = german[0].lower() + german[1:-1]
        first, *others = (clause.split() for clause in german.split(", "))
        if first[0] == "während":
            english = (
                f"while {self.subordinate(first[1:])}, {self.main(*others, begun=True)}"
            )
        elif len(others) == 2:
            lemma, slot, english = self.subject(first)
            relative, rest = others
            assert f"nom {slot[-1]}" in DEFINITE[relative.pop(0)]
            who = "who" if lemma in (*MEN, *WOMEN, "Kind") else "that"
            clause = self.subordinate(relative, (lemma, slot, f"{english} {who}"))
            english = self.main(rest, begun=True, subject=(lemma, slot, clause))
        elif others and others[0][0] == "während":
            english = f"{self.main(first)} while {self.subordinate(others[0][1:])}"
        elif others:
            lemma, slot, _ = self.subject(list(first))
            english = f"{self.main(first)} because {self.reason(lemma, slot, *others)}"
        else:
            english = self.main(first)
        return f"{english[0].upper()}{english[1:]}."

    def reason(self, lemma: str, slot: str, words: list[str]) -> str:
        """Read why: the German pronoun shows gender, the English one sex."""
        because, pronoun, reason, be = words
        he = {"nom m": "er", "nom f": "sie", "nom n": "es", "nom p": "sie"}[slot]
        assert (because, pronoun) == ("weil", he)
        if slot == "nom p":
            assert be == "sind"
            return f"they are {REASONS[reason]}"
        assert be == "ist"
        they = "she" if lemma in WOMEN else "he" if lemma in MEN else "it"
        return f"{they} is {REASONS[reason]}"


@pytest.fixture(scope="module")
def corpus():
    return grammar_corpus()


@pytest.fixture(scope="module")
def readings(corpus):
    """Return the pairs of each split, with their translation and combinations."""
    return {name: [(*pair, *read(pair[0])) for pair in corpus[name]] for name in corpus}


def read(german: str) -> tuple[str, set[str]]:
    reader = Reader()
    return reader.sentence(german), reader.used


def forms(*texts: str) -> set[str]:
    return {word for text in texts for word in text.replace(",", "")[:-1].split()}


def test_every_pair_obeys_german_grammar_and_translates_word_for_word(readings):
    for split in readings.values():
        for german, english, translation, _ in split:
            assert translation == english, german


def test_the_english_is_a_function_of_the_german():
    sampler, translations = Sampler(5), {}
    for german, english in filter(None, (sampler.sentence() for _ in range(120_000))):
        assert translations.setdefault(german, english) == english
    assert len(translations) > 50_000


def test_splits_share_no_sentence_in_either_language(corpus):
    pairs = [pair for split in corpus.values() for pair in split]
    for side in zip(*pairs, strict=True):
        assert len(set(side)) == len(pairs)


def test_each_test_sentence_has_a_combination_that_is_held_out_for_its_split(readings):
    for split, held_out in HELD_OUT.items():
        others = set().union(*HELD_OUT.values()) - held_out
        for german, _, _, used in readings[split]:
            assert used & held_out and not used & others, german
        assert held_out <= set().union(*(used for *_, used in readings[split]))


def test_training_has_no_held_out_combination_but_every_word_of_them(readings):
    used = set().union(*(used for *_, used in readings["train"]))
    known = forms(*(text for reading in readings["train"] for text in reading[:2]))
    for split, held_out in HELD_OUT.items():
        assert not used & held_out
        assert (
            forms(*(text for reading in readings[split] for text in reading[:2]))
            <= known
        )
    # Verbs that come last are many in training: enough to see the rule.
    assert len({combination for combination in used if combination[0] == "."}) >= 20


def test_the_seed_decides():
    corpus = grammar_corpus(300, seed=3)
    assert grammar_corpus(300, seed=3) == corpus
    assert grammar_corpus(300, seed=4) != corpus


def test_the_hash_seed_changes_nothing():
    code = (
        "from annotated_transformer.grammar import grammar_corpus as g; print(g(50, 7))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONUTF8": "1"},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert outputs == {f"{grammar_corpus(50, 7)}\n".encode()}


def test_generating_leaves_the_global_random_state_alone():
    state = random.getstate()
    grammar_corpus(1)
    assert random.getstate() == state


@settings(max_examples=10, deadline=None)
@given(size=st.integers(1, 6000), seed=st.integers(0, 2**40))
def test_sizes_are_as_promised(size, seed):
    corpus = grammar_corpus(size, seed)
    held = max(200, min(1000, size // 20))
    assert {split: len(pairs) for split, pairs in corpus.items()} == {
        "train": size,
        "validation": held,
        "test": held,
    }
    lengths = [len(text.split()) for pair in corpus["train"] for text in pair]
    assert min(lengths) >= 4 and max(lengths) <= 18


def test_a_large_corpus_is_there():
    pairs = grammar_corpus(100_000, seed=1)["train"]
    assert len(set(pairs)) == 100_000


def test_two_german_sentences_with_one_english_are_not_both_taken(monkeypatch):
    """One sheep, two sheep: too rare to wait for."""
    draw = Sampler.sentence
    english = "The cats are chasing the sheep."
    twins = iter(
        [
            (f"Die Katzen jagen {sheep}.", english)
            for sheep in ("das Schaf", "die Schafe")
        ]
    )
    monkeypatch.setattr(
        Sampler, "sentence", lambda self: next(twins, None) or draw(self)
    )
    pairs = grammar_corpus(5)["train"]
    assert [german for german, text in pairs if text == english] == [pairs[0][0]]


@pytest.mark.parametrize("size", [0, -3, MAX_SIZE + 1, 10**12, 2.5, "many", None])
def test_a_bad_size_is_an_input_error(size):
    with pytest.raises(InputError, match=r"size \(.*\) must be .*from 1 to 500000"):
        grammar_corpus(size)


@pytest.mark.parametrize("seed", [-1, 0.5, "one", None])
def test_a_bad_seed_is_an_input_error(seed):
    with pytest.raises(InputError, match=r"seed \(.*\) must be"):
        grammar_corpus(5, seed)
