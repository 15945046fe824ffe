"""What several studies train on: the grammar's short captions, German to English."""

from functools import cache
from typing import NamedTuple

from annotated_transformer.batches import EncodedPair
from annotated_transformer.grammar import grammar_corpus
from annotated_transformer.runs import encode
from annotated_transformer.tokenizers import WordTokenizer

LONGEST = 11  # words, in either language


class Short(NamedTuple):
    """Encoded captions by split, and how many words each language has."""

    pairs: dict[str, list[EncodedPair]]
    sizes: dict[str, int]  # of the vocabularies, as `TransformerConfig` names them


@cache
def short_captions(size: int = 20_000, seed: int = 0) -> Short:
    """The captions of at most 11 words; validation and test combine words anew."""
    corpus = {
        split: [p for p in pairs if max(len(text.split()) for text in p) <= LONGEST]
        for split, pairs in grammar_corpus(size, seed).items()
    }
    words = WordTokenizer.train(corpus["train"])
    sizes = {
        "vocab_size": words.source_vocab_size,
        "tgt_vocab_size": words.target_vocab_size,
    }
    return Short({split: encode(part, words) for split, part in corpus.items()}, sizes)
