"""Sentences whose links from word to word are known (chapter 17)."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from annotated_transformer.batches import collate
from annotated_transformer.decoding import greedy_search
from annotated_transformer.errors import InputError
from annotated_transformer.lessons.claims import seeded
from annotated_transformer.lessons.looking import encoder_words, looks, watch, words
from annotated_transformer.special import EOS
from annotated_transformer.transformer import Transformer
from annotated_transformer.translator import Translator

# Sentences, then links by hand: English word = German word, of verbs, of nouns.
# A verb in two parts, as in hebt+auf, counts as found at either.
LINKED = [
    ("Ein Mann mit Hut lacht, während seine Frau einen Koffer trägt.",
     "laughing=lacht carrying=trägt", "man=Mann hat=Hut woman=Frau suitcase=Koffer"),
    ("Ein Kind sieht einem alten Hund beim Spielen zu.",
     "watches=sieht+zu play=Spielen", "child=Kind dog=Hund"),
    ("Zwei Männer bauen im Garten ein Zelt auf.",
     "building=bauen+auf", "men=Männer tent=Zelt yard=Garten"),
    ("Ein Mädchen schläft, während ihr Bruder ein Buch liest.",
     "sleeping=schläft reads=liest", "girl=Mädchen brother=Bruder book=Buch"),
    ("Der Hund, der einen Ball im Maul hält, rennt über die Wiese.",
     "running=rennt holding=hält", "dog=Hund grass=Wiese ball=Ball mouth=Maul"),
    ("Ein Mann, der eine Zeitung liest, sitzt auf einer Bank.",
     "reading=liest sitting=sitzt", "man=Mann newspaper=Zeitung bench=Bank"),
    ("Ein Wagen wird von zwei weißen Pferden gezogen.",
     "pulled=gezogen", "cart=Wagen horses=Pferden"),
    ("Ein Kind wird von seiner Mutter über die Straße getragen.",
     "carried=getragen", "child=Kind mother=Mutter street=Straße"),
    ("Ein Arbeiter hebt einen schweren Stein auf.",
     "picking=hebt+auf", "worker=Arbeiter rock=Stein"),
    ("Eine Frau schneidet Brot, während ein Kind auf dem Tisch sitzt.",
     "cutting=schneidet sits=sitzt", "woman=Frau bread=Brot child=Kind table=Tisch"),
    ("Eine Gruppe von Menschen hört einem Mann mit Gitarre zu.",
     "listening=hört+zu", "group=Gruppe people=Menschen man=Mann guitar=Gitarre"),
    ("Zwei Kinder warten, während ihr Vater ein Auto repariert.",
     "waiting=warten repairs=repariert", "children=Kinder father=Vater car=Auto"),
    ("Ein Mädchen in einem weißen Kleid bläst die Kerzen aus.",
     "blowing=bläst+aus", "girl=Mädchen dress=Kleid candles=Kerzen"),
    ("Ein Junge springt in die Luft, um einen Ball zu fangen.",
     "jumps=springt catch=fangen", "boy=Junge air=Luft ball=Ball"),
    ("Zwei Frauen schauen zu, wie ein Mann einen Fisch fängt.",
     "watch=schauen+zu catches=fängt", "women=Frauen man=Mann fish=Fisch"),
    ("Ein alter Mann zieht im Park seine Jacke an.",
     "pulling=zieht+an", "man=Mann jacket=Jacke park=Park"),
]  # fmt: skip


class Link(NamedTuple):
    """An English word of a translation, and what its German word is."""

    sentence: int  # of LINKED
    group: str  # verb or noun
    word: str
    right: list[int]  # the German words that count as found
    german: list[str]
    position: float  # of the English word, from 0 to 1
    writes: Float[Tensor, "layer head word"]  # where the row looks that writes it
    reads: Float[Tensor, "layer head word"]  # and the row that reads it


def linked_words(translator: Translator) -> list[Link]:
    """The links of LINKED in the translator's own greedy translations.

    Raises InputError where a translation lacks an English word of a link.
    """
    found, tokenizer = [], translator.tokenizer
    sources = [translator.encode(sentence) for sentence, *_ in LINKED]
    src = collate([(source, []) for source in sources]).src
    outputs = greedy_search(translator.model, src)
    for n, (source, output) in enumerate(zip(sources, outputs, strict=True)):
        maps = watch(translator.model, source, output)["cross"]
        rows = words(tokenizer.target_pieces([*output, EOS]))
        columns = words(tokenizer.source_pieces(source))
        english, german = ([word for word, _ in spans] for spans in (rows, columns))
        later = [(word, [i + 1 for i in positions]) for word, positions in rows[:-1]]
        writes, reads = looks(maps, rows, columns), looks(maps, later, columns)
        for group, links in zip(("verb", "noun"), LINKED[n][1:], strict=True):
            for left, right in (link.split("=") for link in links.split()):
                if left not in english:
                    raise InputError(f"{left!r} is not in {' '.join(english)!r}")
                i, at = english.index(left), [german.index(w) for w in right.split("+")]
                position = i / (len(english) - 1)
                link = n, group, left, at, german, position
                found.append(Link(*link, writes[:, :, i], reads[:, :, i]))
    return found


# Verbs in two parts, as they stand in the course's captions and in LINKED.
TWO_PART = [
    ("sieht", "zu"), ("hebt", "auf"), ("jagt", "hinterher"), ("zieht", "aus"),
    ("wiegt", "ab"), ("bläst", "aus"), ("rollt", "auf"), ("steigen", "ein"),
    ("streckt", "aus"), ("rennt", "hinterher"), ("beugt", "vor"),
    ("paddelt", "hinaus"), ("geht", "hindurch"), ("liest", "vor"), ("setzt", "auf"),
    ("wirft", "aus"), ("gibt", "vor"), ("rutscht", "hinunter"), ("probiert", "an"),
    ("hält", "zu"), ("bauen", "auf"), ("hört", "zu"), ("zieht", "an"),
    ("schieben", "hinauf"),
]  # fmt: skip
# What stands in for the stem of a two-part verb: words that no particle belongs to.
STAND_INS = {
    "nouns": "Hund Mann Frau Kind Ball Haus Baum Auto Straße Hut Wagen Tisch",
    "adjectives": "rot groß klein alt jung blau schwarz weiß grün schnell nass leer",
    "adverbs": "heute gerade oft hier dort draußen gern bald immer zusammen dann nun",
}


def two_part(sentence: str) -> tuple[str, str] | None:
    """The stem and the particle of its two-part verb, if a word stands between."""
    found = sentence.replace(",", " ,").replace(".", " .").split()
    for stem, particle in sorted(TWO_PART):
        if stem in found and particle in found:
            i, j = found.index(stem), found.index(particle)
            if j > i + 1 and found[j + 1] in ".,":
                return stem, particle
    return None


def particle_weights(
    translator: Translator,
    sentence: str,
    stem: str,
    particle: str,
    model: Transformer | None = None,
) -> tuple[Float[Tensor, " head"], Float[Tensor, " head"]]:
    """What the last such particle gives the stem, and other distant words on average.

    A number for each encoder head, those of layer 0 first.
    """
    names, weights = encoder_words(translator, sentence, model)
    i, j = names.index(stem), len(names) - 1 - names[::-1].index(particle)
    far = [k for k, word in enumerate(names) if word.isalpha() and abs(k - j) > 1]
    return weights[:, j, i], weights[:, j, [k for k in far if k != i]].mean(-1)


def stand_in_weights(
    translator: Translator, sentence: str, kind: str, *, number: int = 12, seed: int = 0
) -> Float[Tensor, " head"]:
    """What the particle gives to words in its verb's position that are not its verb.

    `kind` is "verbs", of other particles, or one of `STAND_INS`; the mean of `number`.
    """
    stem, particle = two_part(sentence) or ("", "")
    stems = sorted({s for s, _ in TWO_PART if (s, particle) not in TWO_PART})
    free = stems if kind == "verbs" else STAND_INS[kind].split()
    drawn = torch.randperm(len(free), generator=seeded(seed))[:number].tolist()
    weights = []
    for word in (free[i] for i in drawn):
        changed = sentence.replace(f" {stem} ", f" {word} ")
        weights.append(particle_weights(translator, changed, word, particle)[0])
    return torch.stack(weights).mean(0)
