"""Lines as people give them: several sentences, a sentence too long, another text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from annotated_transformer.decoding import beam_search
from annotated_transformer.errors import InputError
from annotated_transformer.special import UNK
from annotated_transformer.text import normalize, sentences, unspaced_language
from annotated_transformer.translator import Translator


@dataclass(frozen=True)
class Line:
    """A line and its translation, or why it has none."""

    source: str
    translation: str = ""
    error: str | None = None


def translate_lines(
    translator: Translator,
    lines: Sequence[str],
    *,
    search: Callable[..., list[list[int]]] = beam_search,
    split: bool = True,
) -> list[Line]:
    """Translate each sentence of each line on its own, and join what belongs together.

    A line with a sentence that cannot be read gets an error; the others are translated.
    """
    parts: list[list[str]] = []
    errors: list[str | None] = []
    for line in lines:
        try:
            found = sentences(line, translator.source_lang) if split else [line]
            for sentence in found:
                translator.encode(sentence)
        except InputError as error:
            parts.append([])
            errors.append(str(error))
        else:
            parts.append(found)
            errors.append(None)
    flat = [sentence for found in parts for sentence in found]
    done = iter(translator.translate(flat, search=search))
    results = [joined([next(done) for _ in found]) for found in parts]
    return [Line(*row) for row in zip(lines, results, errors, strict=True)]


def joined(parts: Sequence[str]) -> str:
    """Sentences as one line, with spaces between them where the language has spaces."""
    return ("" if unspaced_language(parts) else " ").join(filter(None, parts))


def is_unfamiliar(translator: Translator, text: str) -> bool:
    """Whether a text is all capitals, or several of its pieces are unknown."""
    text = normalize(text)
    if text.isupper() and sum(map(str.isalpha, text)) > 3:
        return True
    ids = translator.tokenizer.encode_source(text)
    n_unknown = ids.count(UNK)
    return n_unknown > 3 or 4 * n_unknown > len(ids)
