"""From text to ids and back: one vocabulary of subwords, or two of words (§5.1).

A vocabulary is learned from the training split alone: one that has seen the test split
knows words that a translator should meet there for the first time.
"""

import io
import re
from collections import Counter
from collections.abc import Iterable
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from annotated_transformer.corpora import Pair
from annotated_transformer.errors import InputError
from annotated_transformer.files import read_json, whole_or_nothing, write_json
from annotated_transformer.special import BOS, EOS, PAD, SPECIALS, UNK
from annotated_transformer.text import (
    UNSPACED,
    has_endless_word,
    normalize,
    unspaced_language,
)

SUBWORD_FILE, WORD_FILE = "tokenizer.model", "tokenizer.json"
LANGUAGES = ("source_lang", "target_lang")  # spaCy's names of them, such as "de"


@runtime_checkable
class Tokenizer(Protocol):
    """What a translator needs from a tokenizer.

    Encoded sentences end with EOS and have no BOS. Decoding stops at the first EOS.
    `shared` says that source and target use the same ids, so that one embedding matrix
    can serve both.
    """

    shared: bool
    source_vocab_size: int
    target_vocab_size: int

    def encode_source(self, text: str) -> list[int]: ...
    def encode_target(self, text: str) -> list[int]: ...
    def decode(self, ids: Iterable[int]) -> str: ...
    def source_pieces(self, ids: Iterable[int]) -> list[str]: ...
    def target_pieces(self, ids: Iterable[int]) -> list[str]: ...
    def save(self, folder: Path) -> None: ...


class SubwordTokenizer:
    """Byte-pair encoding by SentencePiece, one vocabulary for both languages (§5.1)."""

    shared = True

    def __init__(self, model: bytes):
        from sentencepiece import SentencePieceProcessor

        bad_model = InputError(
            "the SentencePiece model is damaged, or was trained with other settings: "
            "copy it again, or train a new one"
        )
        # Part of a file, even none, can load. A complete one ends with its normalizer.
        if b"identity" not in model[-24:]:
            raise bad_model
        try:
            self.model = SentencePieceProcessor(model_proto=model)
        except RuntimeError:
            raise bad_model from None
        special = ("pad", "bos", "eos", "unk")
        if [getattr(self.model, f"{x}_id")() for x in special] != [PAD, BOS, EOS, UNK]:
            raise bad_model
        self.vocab_size = len(self.model)
        self.source_vocab_size = self.target_vocab_size = self.vocab_size

    @classmethod
    def train(
        cls, pairs: Iterable[Pair], *, vocab_size: int = 4_000
    ) -> "SubwordTokenizer":
        """Learn the pieces from both sides of the training split.

        A text too small for `vocab_size` pieces yields as many as it can.
        """
        from sentencepiece import SentencePieceTrainer

        sentences = [normalize(text) for pair in pairs for text in pair]
        characters = set("".join(sentences)) - {" "}
        if not characters:
            raise InputError("there is no text to train a tokenizer on")
        required = len(SPECIALS) + len(characters) + 1  # 1 for the space
        if vocab_size < required:
            raise InputError(
                f"vocab_size ({vocab_size}) must be at least {required} for this text: "
                f"{len(SPECIALS)} special ids and {required - len(SPECIALS)} characters"
            )
        model = io.BytesIO()
        SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            character_coverage=1.0,
            normalization_rule_name="identity",  # the default loses characters
            max_sentence_length=10**7,  # longer ones would be silently dropped
            pad_id=PAD,
            bos_id=BOS,
            eos_id=EOS,
            unk_id=UNK,
            num_threads=1,
            minloglevel=2,
        )
        return cls(model.getvalue())

    @classmethod
    def load(cls, folder: Path) -> "SubwordTokenizer":
        """Read what `save` wrote. Raises InputError if it is damaged."""
        path = folder / SUBWORD_FILE
        try:
            return cls(path.read_bytes())
        except InputError as error:
            raise InputError(f"{path}: {error}") from None

    def save(self, folder: Path) -> None:
        """Write `tokenizer.model`, whole or not at all."""
        with whole_or_nothing(folder / SUBWORD_FILE) as temporary:
            temporary.write_bytes(self.model.serialized_model_proto())
        (folder / WORD_FILE).unlink(missing_ok=True)

    def encode(self, text: str) -> list[int]:
        """The ids of a text of either language, ending with EOS."""
        return [*self.model.encode(normalize(text)), EOS]

    def decode(self, ids: Iterable[int]) -> str:
        """The text up to the first EOS."""
        return self.model.decode(content_ids(ids))

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """One label for each id, for axes and tables; U+2581 stands for a space."""
        return [self.model.id_to_piece(int(i)) for i in ids]

    encode_source = encode_target = encode
    source_pieces = target_pieces = pieces


class WordTokenizer:
    """spaCy's words, and a torchtext vocabulary for each language.

    Departs from §5.1: there are no subwords here, so a rare word becomes UNK.
    """

    shared = False

    def __init__(
        self,
        source_counts: dict[str, int],
        target_counts: dict[str, int],
        *,
        source_lang: str = "de",
        target_lang: str = "en",
    ):
        for language in (source_lang, target_lang):
            spacy_tokenizer(language)  # or it is refused
        self.source_lang, self.target_lang = source_lang, target_lang
        self.source = torchtext_vocabulary(source_counts)
        self.target = torchtext_vocabulary(target_counts)
        self.source_vocab_size = len(self.source)
        self.target_vocab_size = len(self.target)

    @classmethod
    def train(
        cls,
        pairs: Iterable[Pair],
        *,
        min_freq: int = 2,
        source_lang: str = "de",
        target_lang: str = "en",
    ) -> "WordTokenizer":
        """Keep the words that occur at least `min_freq` times in the training split."""
        pairs = list(pairs)
        need_language([source for source, _ in pairs], source_lang, "source")
        need_language([target for _, target in pairs], target_lang, "target")
        counts: tuple[Counter[str], Counter[str]] = Counter(), Counter()
        for source, target in pairs:
            counts[0].update(split_words(source, source_lang))
            counts[1].update(split_words(target, target_lang))
        kept = [{w: n for w, n in side.items() if n >= min_freq} for side in counts]
        for side, words in zip(counts, kept, strict=True):
            if not words:
                raise InputError(
                    f"min_freq ({min_freq}) leaves no word: the most frequent one "
                    f"occurs {max(side.values(), default=0)} times"
                )
        return cls(*kept, source_lang=source_lang, target_lang=target_lang)

    @classmethod
    def load(cls, folder: Path) -> "WordTokenizer":
        """Read what `save` wrote. Raises InputError if it is damaged."""
        saved = read_json(folder / WORD_FILE)
        try:
            languages = {key: saved[key] for key in LANGUAGES if key in saved}
            return cls({**saved["source"]}, {**saved["target"]}, **languages)
        except (KeyError, TypeError):
            raise InputError(
                f"{folder / WORD_FILE} holds no word counts: copy it again"
            ) from None

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json`: languages, words, and how often each was seen."""
        sides = {"source": self.source, "target": self.target}
        counts = {
            side: {word: vocab.freqs[word] for word in vocab.itos[len(SPECIALS) :]}
            for side, vocab in sides.items()
        }
        languages = {key: getattr(self, key) for key in LANGUAGES}
        write_json(folder / WORD_FILE, languages | counts)
        (folder / SUBWORD_FILE).unlink(missing_ok=True)

    def encode_source(self, text: str) -> list[int]:
        """The ids of a text in the source language, ending with EOS."""
        return [*map(self.source.__getitem__, split_words(text, self.source_lang)), EOS]

    def encode_target(self, text: str) -> list[int]:
        """The ids of a text in the target language, ending with EOS."""
        return [*map(self.target.__getitem__, split_words(text, self.target_lang)), EOS]

    def decode(self, ids: Iterable[int]) -> str:
        """The text up to the first EOS, guessing where the spaces were."""
        words = [self.target.itos[i] for i in content_ids(ids)]
        if self.target_lang in UNSPACED:
            return "".join(words)
        text = " ".join(words)
        text = re.sub(r" (n't\b|'(?:s|re|m|ll|ve|d)\b|[.,;:!?%)\]}])", r"\1", text)
        text = re.sub(r"([(\[{$]) ", r"\1", text)
        return re.sub(r"(?<=\w) ([-/]) (?=\w)", r"\1", text)  # blond-haired

    def source_pieces(self, ids: Iterable[int]) -> list[str]:
        """One label of the source language for each id."""
        return [self.source.itos[i] for i in ids]

    def target_pieces(self, ids: Iterable[int]) -> list[str]:
        """One label of the target language for each id."""
        return [self.target.itos[i] for i in ids]


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """The tokenizer that was saved in a folder, of either kind."""
    folder = Path(folder)
    if (folder / SUBWORD_FILE).is_file():
        return SubwordTokenizer.load(folder)
    if (folder / WORD_FILE).is_file():
        return WordTokenizer.load(folder)
    raise InputError(f"{folder} holds neither {SUBWORD_FILE} nor {WORD_FILE}")


def tokenizer_bytes(folder: Path) -> bytes:
    """The file of the tokenizer in a folder, for a digest."""
    for name in (SUBWORD_FILE, WORD_FILE):
        if (folder / name).is_file():
            return (folder / name).read_bytes()
    return b""


def content_ids(ids: Iterable[int]) -> list[int]:
    """The ids before the first EOS that stand for text."""
    before_end = takewhile(lambda i: i != EOS, map(int, ids))
    return [i for i in before_end if i not in (PAD, BOS)]


def split_words(text: str, language: str) -> list[str]:
    """The words of a text, by spaCy's rules for a language, such as "de" or "en"."""
    text = normalize(text)
    if language != "zh" and has_endless_word(text):
        return text.split()
    return [word.text for word in spacy_tokenizer(language)(text)]


@cache
def spacy_tokenizer(language: str) -> Any:
    """spaCy's tokenizer for a language, such as "de" or "en", loaded once."""
    import spacy

    try:
        return spacy.blank(language).tokenizer  # rules alone: no model to download
    except (ImportError, ValueError, AttributeError, TypeError) as error:
        cause = " ".join(str(error).split())
        raise InputError(
            f"spaCy has no rules here for the words of {language!r}: name another "
            f"language, install what it needs, or use subwords ({cause})"
        ) from None


def has_rules(language: str) -> bool:
    """Whether spaCy can find the words of a language on this machine."""
    try:
        spacy_tokenizer(language)
    except InputError:
        return False
    return True


def need_language(texts: list[str], language: str, side: str) -> None:
    """Raise InputError if the rules of a language find no words in these texts."""
    found = unspaced_language(texts)
    if found and language not in UNSPACED:
        raise InputError(
            f"the {side} side looks like {found!r}, which has no spaces between words: "
            f"the rules of {language!r} find none. Name the language with "
            f"--{side}-lang {found}, or use subwords"
        )


def torchtext_vocabulary(counts: dict[str, int]) -> Any:
    """A torchtext vocabulary of the counted words, after the special tokens."""
    from torchtext.vocab import Vocab

    return Vocab(Counter(counts), specials=list(SPECIALS))
