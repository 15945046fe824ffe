"""Translate with CTranslate2: python translate.py "Ein Hund läuft am Strand."

Needs ctranslate2 and sentencepiece, and the files beside this one.
"""

import re
import sys
import unicodedata
from pathlib import Path

from ctranslate2 import Translator
from sentencepiece import SentencePieceProcessor

HERE = Path(__file__).parent
INVISIBLE = re.compile(
    "[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]"
)


def normalize(text):
    """The form in which the model has read all its text."""
    text = INVISIBLE.sub("", text.replace("\u2581", " "))
    return " ".join(unicodedata.normalize("NFC", text).split())


def load(folder=HERE, threads=1):
    """The tokenizer and the engine."""
    tokenizer = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    return tokenizer, Translator(
        str(folder), compute_type="default", inter_threads=1, intra_threads=threads
    )


def translate(sentences, tokenizer, engine, beam_size=1):
    """Translate sentences, greedily unless there are several beams."""
    texts = list(map(normalize, sentences))
    pieces = [[*tokenizer.encode(text, out_type=str), "</s>"] for text in texts]
    results = engine.translate_batch(
        pieces,
        beam_size=beam_size,
        max_decoding_length=max(map(len, pieces)) + 50,
        suppress_sequences=[["<pad>"], ["<s>"]],
    )
    return [tokenizer.decode(result.hypotheses[0]) for result in results]


if __name__ == "__main__":
    for line in translate(sys.argv[1:], *load()):
        print(line)
