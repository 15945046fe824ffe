"""Tokenizers: what is encoded comes back, and special ids never come from text."""

import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotated_transformer.corpora import Pair, multi30k
from annotated_transformer.errors import InputError
from annotated_transformer.special import BOS, EOS, PAD, UNK
from annotated_transformer.text import normalize
from annotated_transformer.tokenizers import (
    SubwordTokenizer,
    Tokenizer,
    WordTokenizer,
    load_tokenizer,
)

PAIRS = [
    ("Zwei Hunde laufen am Strand.", "Two dogs run on the beach."),
    ("Ein Hund schläft, z. B. im Haus.", "A dog isn't awake, e.g. in the house."),
    ("Der Mann grüßt die Frau! 👋🏽", "The blond-haired man (he) greets the woman!"),
    ("שלום sagt der Mann.", "The man says שלום to the two dogs."),
]

SUBWORDS = SubwordTokenizer.train(PAIRS, vocab_size=120)
WORDS = WordTokenizer.train(PAIRS, min_freq=1)
BOTH = pytest.mark.parametrize("tokenizer", [SUBWORDS, WORDS], ids=["BPE", "words"])

few = settings(max_examples=100, deadline=None, derandomize=True)
known_characters = sorted({c for pair in PAIRS for text in pair for c in text})
known_text = st.text(st.sampled_from([*known_characters, "\t", "\n", "\xa0", "\u2581"]))
any_text = st.text(st.characters(codec="utf-8"))


@pytest.fixture(scope="module")
def captions(multi30k_folder: Path) -> list[Pair]:
    """The training split of the real Multi30k, or a skip."""
    return multi30k(multi30k_folder)["train"]


# Both kinds


def test_accents_are_one_character_however_they_were_typed():
    typed = unicodedata.normalize("NFD", PAIRS[1][0])
    assert typed != PAIRS[1][0]
    for tokenizer in (SUBWORDS, WORDS):
        assert tokenizer.encode_source(typed) == tokenizer.encode_source(PAIRS[1][0])


@BOTH
@few
@given(text=any_text)
def test_any_text_has_one_end_and_no_other_special_id(tokenizer, text):
    for ids, size in (
        (tokenizer.encode_source(text), tokenizer.source_vocab_size),
        (tokenizer.encode_target(text), tokenizer.target_vocab_size),
    ):
        assert ids.index(EOS) == len(ids) - 1
        assert not {PAD, BOS} & set(ids)
        assert max(ids) < size


@BOTH
@pytest.mark.parametrize("special", ["<pad>", "<s>", "</s>", "<unk>"])
def test_text_cannot_write_special_ids(tokenizer, special):
    ids = tokenizer.encode_target(f"two {special} dogs {special}")
    assert ids.index(EOS) == len(ids) - 1
    assert not {PAD, BOS} & set(ids)


@BOTH
@pytest.mark.parametrize("blank", ["", " ", "\n\t\xa0", "\u2581"])
def test_blank_text_is_the_end_alone(tokenizer, blank):
    assert tokenizer.encode_source(blank) == tokenizer.encode_target(blank) == [EOS]
    assert tokenizer.decode([EOS]) == tokenizer.decode([]) == ""


@BOTH
def test_decoding_stops_at_the_first_end_and_skips_padding(tokenizer):
    dogs, woman = (tokenizer.encode_target(text) for text in ("two dogs", "the woman"))
    assert tokenizer.decode([BOS, PAD, *dogs, *woman, PAD]) == "two dogs"
    assert tokenizer.decode([BOS, *dogs[:-1], PAD, *woman[:-1]]) == "two dogs the woman"


@BOTH
def test_there_is_one_label_for_each_id(tokenizer):
    source, target = PAIRS[0]
    ids = tokenizer.encode_source(source)
    labels = tokenizer.source_pieces([BOS, *ids, PAD])
    assert len(labels) == len(ids) + 2
    assert (labels[0], labels[-2], labels[-1]) == ("<s>", "</s>", "<pad>")
    assert "".join(labels[1:-2]).replace("▁", "") == source.replace(" ", "")
    labels = tokenizer.target_pieces(tokenizer.encode_target(target))
    assert "".join(labels[:-1]).replace("▁", "") == target.replace(" ", "")


@BOTH
def test_an_unknown_character_is_the_unknown_id(tokenizer):
    assert UNK in tokenizer.encode_source("Zwei ☃")
    assert UNK in tokenizer.encode_target("two \0 dogs")
    assert UNK not in tokenizer.encode_target("two dogs")


@BOTH
def test_long_text_is_encoded_whole(tokenizer):
    ids = tokenizer.encode_target("dogs " * 10_000)
    assert len(ids) == 10_001
    assert tokenizer.decode(ids) == " ".join(["dogs"] * 10_000)


@BOTH
def test_a_lone_surrogate_is_no_text(tokenizer):
    for encode in (tokenizer.encode_source, tokenizer.encode_target):
        with pytest.raises(InputError, match="character 4 is a lone surrogate"):
            encode("ein\udcff")


@BOTH
def test_a_saved_tokenizer_comes_back_the_same(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "new")
    loaded = load_tokenizer(tmp_path / "new")
    assert isinstance(loaded, Tokenizer)
    assert type(loaded) is type(tokenizer)
    assert loaded.shared == tokenizer.shared
    assert loaded.source_vocab_size == tokenizer.source_vocab_size
    assert loaded.target_vocab_size == tokenizer.target_vocab_size
    for source, target in PAIRS:
        assert loaded.encode_source(source) == tokenizer.encode_source(source)
        ids = loaded.encode_target(target)
        assert ids == tokenizer.encode_target(target)
        assert loaded.decode(ids) == tokenizer.decode(ids)


def test_a_folder_holds_one_tokenizer(tmp_path):
    for tokenizer in (SUBWORDS, WORDS, SUBWORDS):
        tokenizer.save(tmp_path)
        assert type(load_tokenizer(str(tmp_path))) is type(tokenizer)
        assert len(list(tmp_path.iterdir())) == 1


def test_an_empty_folder_holds_none(tmp_path):
    with pytest.raises(InputError, match=r"neither tokenizer\.model nor"):
        load_tokenizer(tmp_path)


# Subwords


@few
@given(text=known_text)
def test_known_characters_come_back(text):
    assert SUBWORDS.decode(SUBWORDS.encode(text)) == normalize(text)


def test_both_languages_share_the_ids():
    assert SUBWORDS.shared
    assert SUBWORDS.source_vocab_size == SUBWORDS.target_vocab_size
    assert SUBWORDS.encode_source("dogs Hunde") == SUBWORDS.encode_target("dogs Hunde")


def test_training_again_gives_the_same_pieces(tmp_path):
    for name in "ab":
        SubwordTokenizer.train(PAIRS, vocab_size=100).save(tmp_path / name)
    a, b = ((tmp_path / name / "tokenizer.model").read_bytes() for name in "ab")
    assert a == b


def test_frequent_words_become_one_piece():
    pairs = [("lang " * 50, "long " * 50), ("kurz", "short")]
    tokenizer = SubwordTokenizer.train(pairs, vocab_size=30)
    assert tokenizer.pieces(tokenizer.encode("long")) == ["▁long", "</s>"]
    assert len(tokenizer.encode("short")) > 2


def test_a_vocabulary_must_hold_every_character():
    pairs = [("ab", "c"), ("a", "b")]
    required = 4 + 3 + 1  # special ids, a, b, c, and the space
    assert SubwordTokenizer.train(pairs, vocab_size=required).vocab_size == required
    for size in (required - 1, 4, 1, 0, -1):
        with pytest.raises(InputError, match=rf"vocab_size \({size}\) .* {required} "):
            SubwordTokenizer.train(pairs, vocab_size=size)


def test_a_tiny_text_gives_the_pieces_it_has():
    tokenizer = SubwordTokenizer.train([("ab", "c")], vocab_size=4_000)
    assert 8 < tokenizer.vocab_size < 20


@pytest.mark.parametrize("pairs", [[], [("", "")], [(" \n", "\t")]])
def test_no_text_trains_no_tokenizer(pairs):
    with pytest.raises(InputError, match="no text"):
        SubwordTokenizer.train(pairs, vocab_size=100)


def test_long_sentences_are_learned_from_too():
    tokenizer = SubwordTokenizer.train([("kurz", "a " * 9_000 + "☃")], vocab_size=40)
    assert UNK not in tokenizer.encode("☃")


def test_half_a_model_is_refused(tmp_path):
    SUBWORDS.save(tmp_path)
    whole = (tmp_path / "tokenizer.model").read_bytes()
    (tmp_path / "tokenizer.model").write_bytes(whole[:-1])
    with pytest.raises(InputError, match=r"tokenizer\.model: .* damaged"):
        load_tokenizer(tmp_path)
    accepted = []
    for size in range(len(whole) + 1):
        try:
            SubwordTokenizer(whole[:size])
        except InputError:
            continue
        accepted.append(size)
    assert accepted == [len(whole)]


def test_a_model_with_other_special_ids_is_refused(tmp_path):
    import sentencepiece

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a b c"]),
        model_prefix=str(tmp_path / "tokenizer"),
        vocab_size=9,
        model_type="bpe",
        normalization_rule_name="identity",
        hard_vocab_limit=False,
        minloglevel=2,
    )
    with pytest.raises(InputError, match="other settings"):
        load_tokenizer(tmp_path)


def test_every_caption_comes_back_from_subwords(captions):
    tokenizer = SubwordTokenizer.train(captions)
    assert tokenizer.vocab_size == 4_000
    for text in (text for pair in captions for text in pair):
        assert tokenizer.decode(tokenizer.encode(text)) == " ".join(text.split())


# Words


def test_ids_go_by_frequency_after_the_special_ones():
    tokenizer = WordTokenizer.train([("c a a b b b", "x y y")], min_freq=1)
    assert tokenizer.source_pieces(range(7)) == [
        *("<pad>", "<s>", "</s>", "<unk>"),
        *("b", "a", "c"),
    ]
    assert tokenizer.encode_source("a b c x") == [5, 4, 6, UNK, EOS]
    assert tokenizer.encode_target("x y b") == [5, 4, UNK, EOS]


def test_rare_words_are_left_out():
    tokenizer = WordTokenizer.train([("a a a b b c", "x x y")], min_freq=2)
    assert (tokenizer.source_vocab_size, tokenizer.target_vocab_size) == (6, 5)
    assert tokenizer.encode_source("a b c") == [4, 5, UNK, EOS]
    assert not tokenizer.shared


def test_looking_up_an_unknown_word_does_not_add_it():
    # torchtext's `stoi` is a defaultdict: it keeps what it is asked for.
    before = len(WORDS.target.stoi)
    assert WORDS.encode_target("snowman") == [UNK, EOS]
    assert len(WORDS.target.stoi) == before


@pytest.mark.parametrize("text", [target for _, target in PAIRS[1:3]])
def test_punctuation_is_attached_again(text):
    assert WORDS.decode(WORDS.encode_target(text)) == text


def test_a_vocabulary_without_words_is_refused():
    with pytest.raises(InputError, match=r"min_freq \(9\) .* occurs 4 times"):
        WordTokenizer.train([("a a a a", "x x x x")], min_freq=9)
    with pytest.raises(InputError, match="occurs 0 times"):
        WordTokenizer.train([])


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"source": {}}', "null"])
def test_damaged_words_are_refused(tmp_path, damage):
    (tmp_path / "tokenizer.json").write_text(damage)
    with pytest.raises(InputError, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path)


def test_counts_of_words_must_be_counts(tmp_path):
    for counts in ("abc", ["a"], 3):
        saved = json.dumps({"source": counts, "target": {"a": 1}})
        (tmp_path / "tokenizer.json").write_text(saved)
        with pytest.raises(InputError, match="no word counts"):
            load_tokenizer(tmp_path)


def test_nearly_every_caption_comes_back_from_words(captions):
    captions = captions[:5_000]
    tokenizer = WordTokenizer.train(captions, min_freq=1)
    texts = [" ".join(target.split()) for _, target in captions]
    same = [tokenizer.decode(tokenizer.encode_target(text)) == text for text in texts]
    assert sum(same) / len(texts) > 0.99


CHINESE = [
    ("Ein Hund läuft.", "一只狗在跑。"),
    ("Ein Hund schläft.", "一只狗在睡觉。"),
    ("Eine Katze schläft.", "一只猫在睡觉。"),
]


def test_words_of_a_language_without_spaces_need_its_name(tmp_path):
    with pytest.raises(InputError, match=r"target side looks like 'zh'.*-lang zh"):
        WordTokenizer.train(CHINESE, min_freq=1)
    backwards = [(target, source) for source, target in CHINESE]
    with pytest.raises(InputError, match=r"source side .*--source-lang zh"):
        WordTokenizer.train(backwards, min_freq=1, target_lang="de")
    named = WordTokenizer.train(CHINESE, min_freq=1, target_lang="zh")
    named.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert (loaded.source_lang, loaded.target_lang) == ("de", "zh")
    for _, target in CHINESE:
        ids = loaded.encode_target(target)
        assert UNK not in ids and loaded.decode(ids) == target


@pytest.mark.parametrize("text", ["犬が走る。", "สุนัขวิ่ง", "ཁྱི་རྒྱུག", "ឆ្កែរត់"])
def test_other_scripts_without_spaces_are_refused_too(text):
    with pytest.raises(InputError, match=r"target side looks like '\w\w'"):
        WordTokenizer.train([("Hund", text)] * 2)


@pytest.mark.parametrize("language", ["klingon", "xq", "", "../de", "km"])
def test_a_language_without_rules_is_named(language):
    with pytest.raises(InputError, match="no rules here") as caught:
        WordTokenizer.train([("Hund", "dog")] * 2, target_lang=language)
    assert "\n" not in str(caught.value)


def test_other_languages_are_cut_by_their_own_rules():
    pairs = [("C'est l'homme.", "È l'uomo.")]
    tokenizer = WordTokenizer.train(
        pairs, min_freq=1, source_lang="fr", target_lang="it"
    )
    pieces = tokenizer.source_pieces(tokenizer.encode_source(pairs[0][0]))
    assert pieces == ["C'", "est", "l'", "homme", ".", "</s>"]


def test_words_saved_without_languages_are_german_and_english(tmp_path):
    saved = json.dumps({"source": {"Hund": 2}, "target": {"dog": 2}})
    (tmp_path / "tokenizer.json").write_text(saved)
    loaded = load_tokenizer(tmp_path)
    assert (loaded.source_lang, loaded.target_lang) == ("de", "en")
    for language in (3, None, "klingon", ["de"]):
        damaged = json.loads(saved) | {"source_lang": language}
        (tmp_path / "tokenizer.json").write_text(json.dumps(damaged))
        with pytest.raises(InputError):
            load_tokenizer(tmp_path)
