"""Text before it is cut into tokens: one form for what looks the same."""

import re
import unicodedata
from collections.abc import Iterable

from annotated_transformer.errors import InputError

# Soft hyphen, zero-width space, word joiner, byte-order mark, marks of direction. Not
# the joiners of emoji and of Persian, which change what a reader sees.
INVISIBLE = re.compile(
    "[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]"
)


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
