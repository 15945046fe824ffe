"""The tokenizer: is what it decodes what it encoded, within the vocabulary?"""

import unicodedata
from collections.abc import Iterator
from typing import Any

import torch

from annotated_transformer.doctor.findings import DECODING, finding, note
from annotated_transformer.doctor.report import Result
from annotated_transformer.doctor.theirs import rows_of
from annotated_transformer.doctor.visit import Visit

LINES = (
    "Ein Mann fährt mit 2 großen Hunden über die Brücke.",
    "Zwölf Kinder hören am 14. Juli 2024 schöne Musik.",
    "A woman in a blue coat is reading, isn't she?",
    "There are 35 boats on the lake; 7 of them are red.",
)
UNKNOWN = ("<unk>", "[UNK]", "⁇")
MOST_UNKNOWN = 0.05


def tokenizer(visit: Visit, coder: Any) -> Iterator[Result]:
    """Encode and decode lines: are they the same, known, and in the vocabulary?"""
    p = visit.patient
    texts = list(p.texts) or list(LINES)
    ids = [encoded(coder, text) for text in texts]
    highest, size = max(map(max, filter(None, ids)), default=0), p.vocab_size
    size = max(size, p.src_vocab_size or 0)
    if highest >= size:
        yield finding(
            "tokenizer: ids",
            f"the tokenizer gives id {highest}, but the vocabulary has {size}",
            "vocab_size",
            measured=f"id {highest}",
            expected=f"ids 0 to {size - 1}",
            weight=DECODING,
        )
    unk = unknown_id(visit)
    known = []
    for text, row in zip(texts, ids, strict=True):
        back = decoded(visit, row)
        if unk not in row and not any(sign in back for sign in UNKNOWN):
            known.append((text, back))
    yield from unknown(ids, unk, own=bool(p.texts))
    yield from lossy(known)


def encoded(tokenizer: Any, text: str) -> list[int]:
    """A text's ids, from tokenizers that give lists, tensors or objects with ids."""
    output = tokenizer.encode(text)
    output = getattr(output, "ids", getattr(output, "input_ids", output))
    if isinstance(output, torch.Tensor):
        output = output.flatten()
    return rows_of([output], 1)[0] if len(output) else []


def decoded(visit: Visit, ids: list[int]) -> str:
    """The text of ids, without start and end token and padding."""
    outer = visit.specials - {unknown_id(visit)}
    return str(visit.patient.tokenizer.decode([i for i in ids if i not in outer]))


def unknown_id(visit: Visit) -> int | None:
    """The id of unknown words, as the patient or its tokenizer says."""
    p = visit.patient
    names = ("unk_id", "unk_token_id")
    given = [p.unk, *(getattr(p.tokenizer, name, None) for name in names)]
    given = [value() if callable(value) else value for value in given]
    return next((i for i in given if isinstance(i, int)), None)


def unknown(ids: list[list[int]], unk: int | None, *, own: bool) -> Iterator[Result]:
    """How many tokens are unknown: a fault in the reader's own lines, else a note."""
    tokens = [token for row in ids for token in row]
    count = tokens.count(unk) if unk is not None else 0
    if count > MOST_UNKNOWN * len(tokens):
        name, share = "tokenizer: unknown words", f"{count / len(tokens):.0%}"
        whose = "" if own else " of the doctor's own lines"
        says = f"{count} of {len(tokens)} tokens{whose} are unknown: {share}"
        numbers = {"measured": share, "expected": f"below {MOST_UNKNOWN:.0%}"}
        if own:
            yield finding(name, says, "unknown_words", weight=DECODING, **numbers)
        else:
            yield note(name, says, "unknown_words", **numbers)


def lossy(pairs: list[tuple[str, str]]) -> Iterator[Result]:
    """Which lines come back as other lines, though no word was unknown."""
    wrong = [(text, back) for text, back in pairs if bare(text) != bare(back)]
    if wrong:
        text, back = wrong[0]
        yield finding(
            "tokenizer: there and back",
            f"{len(wrong)} of {len(pairs)} lines come back changed",
            "tokenizer_lossy",
            measured=f"{back[:100]!r}",
            expected=f"{text[:100]!r}",
            weight=DECODING,
        )


def bare(text: str) -> str:
    """A text without spaces and case, and with one way to write each character."""
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())
