"""Text before it is cut into tokens: one form for what looks the same."""

import re
import unicodedata

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
