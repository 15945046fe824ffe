"""A synchronous grammar: German sentences like image captions, and their translations.

Both languages are built from the same choices, so that each German sentence has exactly
one translation. Some combinations never occur in training: they test composition, not
memory.
"""

import random
from dataclasses import dataclass
from functools import cache

from annotated_transformer.errors import InputError

Pair = tuple[str, str]  # German, English
MAX_SIZE = 500_000  # far below what the grammar can make, so new sentences come fast

# Kind: gender, singular, plural, English; then English plural and pronoun if irregular.
# "m*" is the n-declension: outside the nominative the singular looks like the plural.
NOUN_TABLE = """
person: m Mann Männer man men he, f Frau Frauen woman women she
person: n Kind Kinder child children it, n Mädchen Mädchen girl girls she
person: m* Junge Jungen boy boys he, m* Polizist Polizisten policeman policemen he
person: f Lehrerin Lehrerinnen teacher teachers she, m Spieler Spieler player players he
pet: m Hund Hunde dog, f Katze Katzen cat, m* Affe Affen monkey
farm: n Pferd Pferde horse, f Kuh Kühe cow
farm: n Schaf Schafe sheep sheep, m Vogel Vögel bird
toy: m Ball Bälle ball, f Puppe Puppen doll, n Seil Seile rope
load: f Kiste Kisten box boxes, m Korb Körbe basket
load: m Koffer Koffer suitcase, m Regenschirm Regenschirme umbrella
print: n Buch Bücher book, m Brief Briefe letter, f Zeitung Zeitungen newspaper
fruit: m Apfel Äpfel apple, f Birne Birnen pear, f Tomate Tomaten tomato tomatoes
drink: m Tee - tea, f Milch - milk, n Wasser - water
wear: n Hemd Hemden shirt, f Jacke Jacken jacket, m Mantel Mäntel coat
seat: m Tisch Tische table, m Stuhl Stühle chair, f Bank Bänke bench benches
sight: n Auto Autos car, m Baum Bäume tree, n Haus Häuser house, m Zaun Zäune fence
place: m Park - park, m Garten - garden, m Wald - forest, n Dorf - village
place: f Stadt - city, m Strand - beach, n Ufer - shore, m See - lake
place: f Straße - street, m Spielplatz - playground, f Brücke - bridge
"""
# First part, English: the nouns with which it makes a compound, one word in German.
COMPOUNDS = """
Holz wooden: Tisch Stuhl Bank Kiste
Metall metal: Tisch Stuhl Bank Kiste
Winter winter: Jacke Mantel
Apfel apple: Baum
Fußball soccer: Spieler
Tennis tennis: Spieler
"""
# Adjective, English: the kinds of noun, or the nouns, that it goes with.
QUALITIES = """
klein little: Kind Junge Mädchen pet farm toy load fruit seat sight place
groß big: pet farm toy load fruit seat sight place
alt old: Mann Frau Lehrerin Polizist pet farm load print wear seat sight
jung young: Mann Frau Lehrerin Polizist Spieler pet farm
neu new: toy load print wear seat Auto Haus
müde tired: person pet farm
schön beautiful: toy print wear sight place
frisch fresh: fruit drink
kalt cold: drink
"""
COLORS = """
rot red: toy load fruit wear seat sight
blau blue: toy load wear seat Auto Haus Zaun
grün green: toy load fruit wear sight
schwarz black: pet farm load wear seat Auto
weiß white: pet farm wear seat sight
rosa pink: toy load wear
blond blond: person
"""
# Singular, plural, prefix | English | subjects | [preposition case:] objects | reason
VERB_TABLE = """
schläft schlafen      | sleeping         | person pet farm | | müde tired
spielt spielen        | playing          | person pet | |
läuft laufen          | running          | person pet farm | |
tanzt tanzen          | dancing          | person | | glücklich happy
singt singen          | singing          | person | | glücklich happy
lacht lachen          | laughing         | person | | glücklich happy
weint weinen          | crying           | person | | traurig sad
schläft schlafen ein  | falling asleep   | person pet farm | | müde tired
läuft laufen          | running          | person pet farm | way |
sitzt sitzen          | sitting on       | person | auf dat: Stuhl Bank | müde tired
wartet warten         | waiting for      | person | auf acc: person |
spielt spielen        | playing with     | person pet | mit dat: toy pet |
steht stehen          | standing next to | person pet farm | neben dat: seat sight |
wirft werfen          | throwing         | person | toy |
hält halten           | holding          | person | toy load print fruit |
trägt tragen          | carrying         | person | toy load seat |
trägt tragen          | wearing          | person | wear |
isst essen            | eating           | person | fruit | hungrig hungry
frisst fressen        | eating           | pet farm | fruit | hungrig hungry
trinkt trinken        | drinking         | person | drink | durstig thirsty
trinkt trinken        | drinking         | pet farm | Milch Wasser | durstig thirsty
kauft kaufen          | buying           | person | load print fruit wear seat |
liest lesen           | reading          | person | print |
malt malen            | painting         | person | pet farm sight seat fruit |
füttert füttern       | feeding          | person | pet farm |
jagt jagen            | chasing          | pet | pet farm |
beobachtet beobachten | watching         | person pet | person pet farm |
repariert reparieren  | repairing        | person | seat Auto Zaun |
hebt heben auf        | picking up       | person | toy load print |
zieht ziehen an       | putting on       | person | wear |
wirft werfen weg      | throwing away    | person | toy print fruit |
ruft rufen an         | calling          | person | person |
schaut schauen an     | looking at       | person | pet farm sight print |
"""
NUMBERS = [("zwei", "two"), ("drei", "three"), ("vier", "four")]
TIMES = [("am Morgen", "in the morning"), ("am Abend", "in the evening")]
TIMES += [("in der Nacht", "at night"), ("im Sommer", "in summer")]
# Preposition, English for being there (German dative) and for going there (accusative).
PLACES = dict.fromkeys(["Strand", "Ufer"], ("an", "on", "to"))
PLACES |= {"See": ("an", "at", "to")}
PLACES |= dict.fromkeys(["Straße", "Spielplatz", "Brücke"], ("auf", "on", "onto"))
PLACES |= dict.fromkeys(["Haus", "Auto", "Bank"], ("vor", "in front of", ""))
PLACES |= dict.fromkeys(["Baum", "Zaun", "Tisch", "Stuhl"], ("hinter", "behind", ""))
CONTRACTIONS = {"in dem": "im", "an dem": "am", "in das": "ins", "an das": "ans"}

# The columns are masculine, feminine, neuter, plural.
PRONOUN = {"nom": "er sie es sie"}
THE = {"nom": "der die das die", "acc": "den die das die", "dat": "dem der dem den"}
A = {"nom": "ein eine ein", "acc": "einen eine ein", "dat": "einem einer einem"}
# Strong: no article shows gender and case, so the adjective does, ending like "der".
STRONG = {"nom": "er e es e", "acc": "en e es e", "dat": "em er em en"}
# Weak: the definite article has shown them; what is left is -e or -en.
WEAK = {"nom": "e e e en", "acc": "en e e en", "dat": "en en en en"}
# Mixed: "ein" has shown them too, except where it has no ending of its own.
MIXED = {"nom": "er e es", "acc": "en e es", "dat": "en en en"}

# Front, subject, verb, middle, prefix; in small letters those of the second clause.
# A German main clause has its verb second and the prefix at the end; any other clause
# has both at its end, in one word.
PATTERN_TABLE = """
plain: {S} {V} {M} {P} = {S} {V} {M}
front: {F} {V} {S} {M} {P} = {F}, {S} {V} {M}
relative: {S}, {who} {m} {p}{v}, {V} {M} {P} = {S} {who} {v} {m} {V} {M}
while: {S} {V} {M} {P}, während {s} {m} {p}{v} = {S} {V} {M} while {s} {v} {m}
while first: während {s} {m} {p}{v}, {V} {S} {M} {P} = while {s} {v} {m}, {S} {V} {M}
because: {S} {V} {M} {P}, weil {s} {m} {v} = {S} {V} {M} because {s} {v} {m}
"""
# Nobody sleeps and reads at once, and wearing a coat is not an event for "while".
ALONE = {"sleeping", "falling asleep", "sitting on", "standing next to", "crying"}
MISFITS = {"relative": ALONE, "while": {"wearing"}, "while first": {"wearing"}}
# Never in training: an adjective with a noun, a verb that comes last in its clause.
HELD_OUT = {
    "validation": {"rot Apfel", "klein Junge", "schwarz Katze", "alt Koffer"}
    | {"blau Jacke", "groß Baum", "jung Frau", "neu Buch"}
    | {"... füttert", "... hält", "... singt"},
    "test": {"rot Ball", "klein Hund", "weiß Pferd", "alt Mann"}
    | {"blau Hemd", "groß Haus", "müde Kind", "neu Tisch"}
    | {"... malt", "... liest", "... tanzt"},
}


@dataclass(frozen=True)
class Noun:
    """A noun in both languages; the German plural "-" means that it has none."""

    kind: str
    gender: str
    german: str
    plural: str
    english: str
    english_plural: str = ""
    pronoun: str = "it"

    def inflect(self, case: str, is_plural: bool) -> Pair:
        """Return the German form for a case, and the English one."""
        if not is_plural:
            weak = self.gender == "m*" and case != "nom"
            return self.plural if weak else self.german, self.english
        # The dative plural ends in -n, unless the plural ends in -n or -s.
        needs_n = case == "dat" and self.plural[-1] not in "ns"
        return self.plural + "n" * needs_n, self.english_plural or self.english + "s"


@dataclass(frozen=True)
class Verb:
    """A verb in both languages, who does it to what, and why."""

    english: str
    subjects: list[str]
    objects: list[str]
    reason: list[str]
    singular: str
    plural: str
    prefix: str = ""
    preposition: str = ""
    case: str = "acc"


@dataclass(frozen=True)
class Phrase:
    """A noun with its article, number and adjectives."""

    words: Pair
    noun: Noun
    is_plural: bool


def rows(table: str) -> list[list[str]]:
    """Split a table into lines, and each line at its colon."""
    return [line.split(": ") for line in table.strip().splitlines()]


def read_nouns() -> list[Noun]:
    """Read the nouns from their table."""
    table = [(kind, nouns.split(", ")) for kind, nouns in rows(NOUN_TABLE)]
    return [Noun(kind, *noun.split()) for kind, nouns in table for noun in nouns]


def read_verb(line: str) -> Verb:
    """Read one line of the verb table."""
    forms, english, subjects, objects, reason = line.split("|")
    government, _, objects = objects.rpartition(": ")
    lists = subjects.split(), objects.split(), reason.split()
    singular, plural, prefix = [*forms.split(), ""][:3]
    return Verb(english.strip(), *lists, singular, plural, prefix, *government.split())


NOUNS = read_nouns()
VERBS = [read_verb(line) for line in VERB_TABLE.strip().splitlines()]
PATTERNS = dict(rows(PATTERN_TABLE))


@cache
def fitting(table: str, *words: str) -> list[Pair]:
    """Return the entries of a table that go with one of the words."""
    fits = [entry for entry, others in rows(table) if {*others.split()} & {*words}]
    return [(german, english) for german, english in map(str.split, fits)]


def pick(table: dict[str, str], case: str, noun: Noun, is_plural: bool) -> str:
    """Look up the ending or article for a case and a gender."""
    return table[case].split()["mfnp".index("p" if is_plural else noun.gender[0])]


def join(*pairs: Pair) -> Pair:
    """Put words together, and leave out what is empty."""
    german, english = zip(*pairs, strict=True)
    return " ".join(filter(None, german)), " ".join(filter(None, english))


def finish(text: str) -> str:
    """Tidy the spaces, contract prepositions with articles, capitalize, punctuate."""
    text = f" {' '.join(text.split())}.".replace(" ,", ",")
    for long, short in CONTRACTIONS.items():
        text = text.replace(f" {long} ", f" {short} ")
    return text[1].upper() + text[2:]


class Sampler:
    """Draws sentences, and notes which combinations the last one uses."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)
        self.used: set[str] = set()

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return self.random.random() < probability

    def noun(self, kinds: list[str], but: Noun | None = None) -> Noun:
        """Draw a noun by kinds or by name."""
        fits = [n for n in NOUNS if (n.kind in kinds or n.german in kinds) and n != but]
        return self.random.choice(fits)

    def adjectives(self, noun: Noun, needed: bool) -> list[Pair]:
        """Draw no adjective (unless needed), one, or a quality and a color."""
        if not needed and self.chance(0.8 if noun.kind == "place" else 0.55):
            return []
        options = (fitting(t, noun.kind, noun.german) for t in (QUALITIES, COLORS))
        chosen = [self.random.choice(pairs) for pairs in options if pairs]
        if self.chance(0.8):
            chosen = [self.random.choice(chosen)]
        self.used |= {f"{german} {noun.german}" for german, _ in chosen}
        return chosen

    def phrase(self, noun: Noun, case: str, is_plural: bool | None = None) -> Phrase:
        """Put article, number and adjectives before a noun, in agreement with it."""
        if is_plural is None:
            is_plural = noun.plural != "-" and self.chance(0.35)
        german, english = noun.inflect(case, is_plural)
        parts = fitting(COMPOUNDS, noun.german)
        if parts and self.chance(0.4):
            part, part_english = self.random.choice(parts)
            german, english = part + german.lower(), f"{part_english} {english}"
        definite = self.chance(0.7 if noun.kind == "place" else 0.35)
        numbered = is_plural and noun.kind != "wear" and self.chance(0.5)
        words = [self.random.choice(NUMBERS)] if numbered else []
        # With no article and no number, an adjective must tell two "Koffer" from one.
        adjectives = self.adjectives(noun, is_plural and not (definite or numbered))
        if definite:
            article, endings = (pick(THE, case, noun, is_plural), "the"), WEAK
        elif is_plural or noun.kind == "drink":
            article, endings = ("", ""), STRONG
        else:
            sound = (adjectives[0][1] if adjectives else english)[0]
            an = "an" if sound in "aeiou" else "a"
            article, endings = (pick(A, case, noun, is_plural), an), MIXED
        for stem, meaning in adjectives:  # "müde" has its -e, "rosa" takes no ending
            ending = "" if stem == "rosa" else pick(endings, case, noun, is_plural)
            words.append((stem.removesuffix("e") + ending, meaning))
        return Phrase(join(article, *words, (german, english)), noun, is_plural)

    def dress(self, person: Phrase) -> Phrase:
        """Dress a few of the people; two of them wear coats, not a coat."""
        if person.noun.kind != "person" or self.chance(0.85):
            return person
        wear = self.phrase(self.noun(["wear"]), "dat", person.is_plural)
        words = join(person.words, ("in", "in"), wear.words)
        return Phrase(words, person.noun, person.is_plural)

    def place(self, case: str) -> Pair:
        """Draw a place: one is there (dative) or goes there (accusative)."""
        noun = self.noun(["place", "sight", "seat"] if case == "dat" else ["place"])
        preposition, there, toward = PLACES.get(noun.german, ("in", "in", "into"))
        words = preposition, there if case == "dat" else toward
        return join(words, self.phrase(noun, case).words)

    def object(self, verb: Verb, subject: Phrase) -> Pair:
        """Draw what the verb governs: an object, a way to go, or nothing."""
        if verb.objects in ([], ["way"]):
            return self.place("acc") if verb.objects else ("", "")
        noun = self.noun(verb.objects, subject.noun)
        # Two men wear coats, not a coat.
        is_plural = subject.is_plural if verb.objects == ["wear"] else None
        phrase = self.phrase(noun, verb.case, is_plural)
        return join((verb.preposition, ""), phrase.words)

    def clause(self, pattern: str, verb: Verb, subject: Phrase) -> dict[str, Pair]:
        """Return the words for the capital letters of a pattern."""
        likely = {"plain": 0.5, "front": 1.0}.get(pattern, 0.15)
        adverbs = [self.random.choice(TIMES)] if self.chance(likely / 3) else []
        if verb.objects != ["way"] and self.chance(likely):
            adverbs.append(self.place("dat"))
        front = ("", "")
        if pattern == "front":
            front = adverbs.pop(0) if adverbs else self.random.choice(TIMES)
        # German: time, place, object. English: object, place, time.
        words = self.object(verb, subject)
        middle, _ = join(*adverbs, words)
        _, rest = join(("", verb.english), words, *reversed(adverbs))
        finite = (verb.plural, "are") if subject.is_plural else (verb.singular, "is")
        parts = front, subject.words, finite, (middle, rest), (verb.prefix, "")
        return dict(zip("FSVMP", parts, strict=True))

    def reason(self, verb: Verb, subject: Phrase) -> dict[str, Pair]:
        """Return the words for the small letters of "because": he is tired."""
        he = pick(PRONOUN, "nom", subject.noun, subject.is_plural)
        they = "they" if subject.is_plural else subject.noun.pronoun
        be = ("sind", "are") if subject.is_plural else ("ist", "is")
        return {"s": (he, they), "v": be, "m": (verb.reason[0], verb.reason[1])}

    def sentence(self) -> Pair | None:
        """Draw a sentence, or return None if its parts do not go together."""
        self.used = set()
        pattern = self.random.choice(list(PATTERNS))
        verb, other = self.random.choices(VERBS, k=2)
        if {verb.english, other.english} & MISFITS.get(pattern, set()):
            return None
        subject = self.phrase(self.noun(verb.subjects), "nom")
        if pattern != "relative":  # "a boy in a shirt who laughs": who does?
            subject = self.dress(subject)
        parts = self.clause(pattern, verb, subject)
        if pattern == "because":
            if not verb.reason:
                return None
            parts |= self.reason(verb, subject)
        elif pattern not in ("plain", "front"):
            if pattern != "relative":
                subject = self.phrase(self.noun(other.subjects, subject.noun), "nom")
            if verb.english == other.english or subject.noun.kind not in other.subjects:
                return None
            second = self.clause(pattern, other, subject)
            parts |= {letter.lower(): words for letter, words in second.items()}
            who = "who" if subject.noun.kind == "person" else "that"
            parts["who"] = pick(THE, "nom", subject.noun, subject.is_plural), who
            self.used.add(f"... {other.prefix}{other.singular}")
        return self.write(pattern, parts)

    def write(self, pattern: str, parts: dict[str, Pair]) -> Pair | None:
        """Put the words into their pattern; None if a sentence is short or long."""
        german, english = (
            finish(side.format_map({name: words[i] for name, words in parts.items()}))
            for i, side in enumerate(PATTERNS[pattern].split(" = "))
        )
        fits = all(4 <= len(text.split()) <= 18 for text in (german, english))
        return (german, english) if fits else None


def grammar_corpus(size: int = 20_000, seed: int = 0) -> dict[str, list[Pair]]:
    """Return `size` training pairs, and held-out pairs that combine words anew."""
    if not (isinstance(size, int) and 1 <= size <= MAX_SIZE):
        raise InputError(f"size ({size}) must be a whole number from 1 to {MAX_SIZE}")
    if not (isinstance(seed, int) and seed >= 0):
        raise InputError(f"seed ({seed}) must be a whole number, 0 or more")
    held = max(200, min(1000, size // 20))
    wanted = {"train": size, "validation": held, "test": held}
    corpus: dict[str, list[Pair]] = {split: [] for split in wanted}
    sampler = Sampler(seed)
    seen: set[str] = set()
    while any(len(corpus[split]) < wanted[split] for split in wanted):
        pair = sampler.sentence()
        if pair is None or not seen.isdisjoint(pair):
            continue
        splits = [split for split in HELD_OUT if sampler.used & HELD_OUT[split]]
        split = (splits or ["train"])[0]
        if len(splits) < 2 and len(corpus[split]) < wanted[split]:
            corpus[split].append(pair)
            seen.update(pair)
    return corpus
