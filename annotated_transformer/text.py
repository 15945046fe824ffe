"""Text before it is cut into tokens: one form for what looks the same; sentences."""

import re
import unicodedata
from collections.abc import Iterable
from functools import cache
from typing import Any

from annotated_transformer.errors import InputError

# Soft hyphen, zero-width space, word joiner, byte-order mark, marks of direction. Not
# the joiners of emoji and of Persian, which change what a reader sees.
INVISIBLE = re.compile(
    "[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]"
)
LONGEST_WORD = 500  # characters


def normalize(text: str) -> str:
    """Compose accents (NFC), make each run of whitespace one space, drop the invisible.

    Encoding and decoding may change nothing else in a text without unknown tokens.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"character {error.start + 1} is a lone surrogate, which is not text: "
            "was it read with the wrong encoding?"
        ) from None
    # SentencePiece writes a space as U+2581, so that character cannot mean itself.
    text = INVISIBLE.sub("", text.replace("\u2581", " "))
    return " ".join(unicodedata.normalize("NFC", text).split())


def look_alike(text: str) -> str:
    """What a text has in common with its look-alikes: capitals, widths, ligatures.

    To compare, not to read: NFKC makes 2 of ² and fi of the ligature ﬁ.
    """
    return normalize(unicodedata.normalize("NFKC", normalize(text)).casefold())


# Letters of the languages that write words without spaces between them.
UNSPACED = {
    "zh": re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"),
    "ja": re.compile("[\u3041-\u30fa\u31f0-\u31ff\uff66-\uff9f]"),  # kana
    "th": re.compile("[\u0e01-\u0e4e]"),
    "lo": re.compile("[\u0e81-\u0ece]"),
    "bo": re.compile("[\u0f40-\u0fbc]"),
    "my": re.compile("[\u1000-\u109f]"),
    "km": re.compile("[\u1780-\u17d3]"),
}


def unspaced_language(texts: Iterable[str]) -> str | None:
    """The language of most of the texts, by its letters, if it writes without spaces.

    One in ten letters in kana tells Japanese from Chinese. A word in other letters
    counts like one of these letters.
    """
    text = " ".join(texts)
    counts = {}
    for language, letter in UNSPACED.items():
        text, counts[language] = letter.subn(" ", text)
    if sum(counts.values()) <= len(re.findall(r"[^\W\d_]+", text)):
        return None
    if 10 * counts["ja"] > counts["zh"]:
        counts["ja"] += counts["zh"]
    return max(counts, key=lambda language: counts[language])


SENTENCE_END = re.compile(r"[.!?…‽؟۔।。！？｡]\W*\w")
OPENING = re.compile(r"\s[^\w\s.!?…]+$")  # if a word follows at once
# Short forms that spaCy's rules do not know: without a vowel (Hr., vgl.), a letter, a
# Roman number, and some that are no words. A number is an ordinal: am 3. Mai.
SHORT = re.compile(
    r"(\d|\b([b-df-hj-np-tv-xzß]+|[^\W\d_]|[ivxlc]+"
    r"|aufl|bes|franz|gest|jur|kap|med|min|nat|phil|sek|spez))\.$",
    re.IGNORECASE,
)


def has_endless_word(text: str) -> bool:
    """Whether a word is so long that spaCy's tokenizer could take minutes over it."""
    return any(len(word) > LONGEST_WORD for word in text.split())


def sentences(text: str, language: str = "de") -> list[str]:
    """The sentences of a text, by spaCy's sentencizer with a language's rules.

    Where a full stop is more likely part of an abbreviation or of an ordinal number,
    before a lowercase word, or inside a sentence's quotation, nothing is cut.
    """
    text = normalize(text)
    if unspaced_language([text]):
        language = "zh"  # character by character
    elif has_endless_word(text):
        return [text]
    if not SENTENCE_END.search(text):
        return [text]  # at once: spaCy takes seconds to load
    rules = sentencizer(language)
    parts, begin = [], 0
    for end in (sentence.end_char for sentence in rules(text).sents):
        opening = OPENING.search(text[begin:end])
        if opening and (opening[0][-1] == "«" or re.match(r"\w", text[end:])):
            end = begin + opening.start()
        if ends_sentence(text[begin:end], text[end:], any_case=text == text.lower()):
            parts.append(text[begin:end].strip())
            begin = end
    return [*parts, text[begin:].strip()]


def ends_sentence(before: str, after: str, *, any_case: bool = False) -> bool:
    """Whether a sentence ends here; with `any_case`, lowercase may begin the next."""
    following = re.search(r"\w", after)
    if not following or not re.search(r"\w", before):
        return False
    if SHORT.search(before) or before.endswith((",", ";", ":")):
        return False
    return any_case or not following[0].islower()


@cache
def sentencizer(language: str) -> Any:
    """spaCy's sentencizer with the rules of a language, or, without them, of none."""
    import spacy

    try:
        rules = spacy.blank(language)
    except ImportError:  # no such language, or one that needs another package
        rules = spacy.blank("xx")
    # Chinese is cut into characters: there a full stop may be inside a number.
    settings = {"punct_chars": [*"。！？!?｡"]} if language == "zh" else {}
    rules.add_pipe("sentencizer", config=settings)
    return rules
