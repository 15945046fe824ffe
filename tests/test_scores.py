"""Scores: arithmetic on paper agrees with sacreBLEU; padding never counts."""

import random
import unicodedata
from dataclasses import asdict
from importlib.util import find_spec
from math import exp

import pytest
import sacrebleu
import torch

from annotated_transformer.corpora import sample_captions
from annotated_transformer.errors import InputError
from annotated_transformer.scores import (
    corpus_scores,
    script_tokenizer,
    token_accuracy,
    word_bleu,
)
from annotated_transformer.special import PAD
from annotated_transformer.tokenizers import split_words

REFERENCES = ["Two dogs run on the beach.", "A man reads.", "She sings a song.", "No."]


def test_bleu_by_hand():
    hypothesis = "the man runs to the the car"  # 7 words
    reference = "the man runs to the red car now"  # 8 words
    # Of its words 6 are in the reference: the third "the" is one too many.
    # Pairs: the man, man runs, runs to, to the; not "the the", not "the car".
    precisions = (6 / 7) * (4 / 6) * (3 / 5) * (2 / 4)
    brevity = exp(1 - 8 / 7)
    by_hand = 100 * brevity * precisions ** (1 / 4)
    scores = corpus_scores([hypothesis], [reference])
    assert scores.bleu == pytest.approx(by_hand, abs=1e-9)


def test_bleu_adds_counts_before_it_divides():
    # Matches of both sentences over n-grams of both: 4+5 of 5+5, 3+4 of 4+4, ...
    precisions = (9 / 10) * (7 / 8) * (5 / 6) * (3 / 4)
    scores = corpus_scores(["a b c d x", "k l m n o"], ["a b c d e", "k l m n o"])
    assert scores.bleu == pytest.approx(100 * precisions ** (1 / 4), abs=1e-9)


def test_chrf_by_hand():
    # Of 3, 2 and 1 character n-grams, 2, 1 and 0 agree, for precision and recall alike.
    by_hand = 100 * (2 / 3 + 1 / 2 + 0) / 3
    assert corpus_scores(["abc"], ["abd"]).chrf == pytest.approx(by_hand, abs=1e-9)


def test_word_bleu_ignores_case_and_splits_words_as_spacy_does():
    assert word_bleu([r.upper() for r in REFERENCES], REFERENCES) == pytest.approx(100)
    theirs, ours = "I don't stop now.", "We don't stop now."
    assert split_words(theirs, "en") == ["I", "do", "n't", "stop", "now", "."]
    by_hand = 100 * (5 / 6 * 4 / 5 * 3 / 4 * 2 / 3) ** (1 / 4)
    assert word_bleu([ours], [theirs]) == pytest.approx(by_hand, abs=1e-4)


def test_perfect_translations_score_100():
    scores = corpus_scores(REFERENCES, REFERENCES)
    assert (scores.bleu, scores.chrf) == pytest.approx((100, 100))
    assert scores.exact_match == 100


def test_exact_match_is_a_percentage_of_sentences():
    scores = corpus_scores(["no.", *REFERENCES[1:3], ""], REFERENCES)
    assert scores.exact_match == 50


def test_capital_letters_count():
    lower = [reference.lower() for reference in REFERENCES]
    assert corpus_scores(lower, REFERENCES).bleu < 80


def test_the_signature_says_how_to_repeat_the_score():
    scores = corpus_scores(REFERENCES, REFERENCES)
    assert list(asdict(scores)) == ["bleu", "chrf", "exact_match", "signature"]
    bleu, chrf = scores.signature.split(" ")
    version = f"version:{sacrebleu.__version__}"
    assert bleu == f"BLEU|nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|{version}"
    assert chrf == f"chrF2|nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|{version}"


NO_SPACES = {
    "zh": ["一只狗在沙滩上跑。", "一个男人在读书。"],
    "char": [
        "犬が浜辺を走っています。",
        "男が本を読む。",
    ],  # ja-mecab if it is installed
    "char thai": ["สุนัขวิ่งบนชายหาด", "ผู้ชายกำลังอ่าน"],
    "char lao": ["ໝາແລ່ນຢູ່ຫາດຊາຍ"],
    "char burmese": ["ခွေးတစ်ကောင်ပြေးနေသည်။"],
    "char khmer": ["ឆ្កែរត់នៅលើឆ្នេរ"],
    "char tibetan": ["ཁྱི་ཞིག་རྒྱུག་བཞིན་འདུག"],
}


@pytest.mark.parametrize("name", NO_SPACES)
def test_the_tokenizer_follows_the_script_of_the_references(name, monkeypatch):
    monkeypatch.setattr("annotated_transformer.scores.find_spec", lambda module: None)
    references = NO_SPACES[name]
    scores = corpus_scores(references, references)
    assert scores.bleu == pytest.approx(100)
    assert f"|tok:{name.split()[0]}|" in scores.signature
    nearly = [reference[:-3] for reference in references]
    assert corpus_scores(nearly, references).bleu > 30  # by 13a it cannot move from 0
    assert corpus_scores(nearly, references, tokenize="13a").bleu < 10


def test_japanese_is_cut_by_mecab_where_it_is_installed(monkeypatch):
    monkeypatch.setattr("annotated_transformer.scores.find_spec", lambda module: True)
    assert script_tokenizer(NO_SPACES["char"]) == "ja-mecab"
    assert script_tokenizer(NO_SPACES["zh"]) == "zh"


@pytest.mark.parametrize(
    "references",
    [
        ["Das Wort 狗 heißt Hund.", "Zwei Hunde laufen am Strand."],
        ["개가 해변에서 달린다.", "남자가 책을 읽는다."],
        ["Собака бежит по пляжу.", "Мужчина читает."],
        ["كلب يركض على الشاطئ", "رجل يقرأ"],
        ["...", "🐕"],
    ],
    ids=["one Chinese word", "Korean", "Russian", "Arabic", "no letters"],
)
def test_languages_with_spaces_keep_13a(references):
    assert "|tok:13a|" in corpus_scores(references, references).signature


def test_a_tokenizer_can_be_named():
    named = corpus_scores(REFERENCES, REFERENCES, tokenize="intl")
    assert "|tok:intl|" in named.signature
    with pytest.raises(InputError, match=r"no tokenizer 'klingon': choose .*13a"):
        corpus_scores(REFERENCES, REFERENCES, tokenize="klingon")
    if not find_spec("MeCab"):
        with pytest.raises(InputError, match=r"ja-mecab.*pip install") as caught:
            corpus_scores(REFERENCES, REFERENCES, tokenize="ja-mecab")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("n_words", [1, 2, 3])
@pytest.mark.parametrize("n_lines", [1, 50])
def test_perfect_translations_of_short_texts_score_100(n_words, n_lines):
    references = [
        " ".join(f"word{i + k}" for k in range(n_words)) for i in range(n_lines)
    ]
    scores = corpus_scores(references, references)
    assert scores.bleu == pytest.approx(100)
    assert word_bleu(references, references) == pytest.approx(100, abs=1e-4)
    assert f"|order:{n_words}|" in scores.signature
    nothing = corpus_scores([""] * n_lines, references)
    wrong = corpus_scores(["no"] * n_lines, references)
    assert nothing.bleu == wrong.bleu == 0


def test_one_long_reference_is_enough_for_the_standard():
    references = ["a dog", "a cat", "a very big dog"]
    hypotheses = ["a dog", "a cat", "a big dog"]
    standard = sacrebleu.corpus_bleu(hypotheses, [references])
    scores = corpus_scores(hypotheses, references)
    assert scores.bleu == standard.score and "order" not in scores.signature


@pytest.mark.parametrize("seed", range(5))
def test_ordinary_text_scores_what_sacrebleu_gives(seed):
    draw = random.Random(seed)
    references = [target for _, target in sample_captions()["captions"]]
    hypotheses = [
        " ".join(w for w in reference.split() if draw.random() < 0.8)
        for reference in references
    ]
    standard = sacrebleu.corpus_bleu(hypotheses, [references]).score
    assert corpus_scores(hypotheses, references).bleu == standard


def test_spellings_that_look_the_same_are_the_same():
    references = ["Une école près du café à Orléans.", "Deux garçons."]
    for change in (
        lambda text: unicodedata.normalize("NFD", text),
        lambda text: text.replace(" ", "\u00a0"),
        lambda text: text.replace(" ", "  ") + " \r",
        lambda text: "\ufeff" + text,
    ):
        twins = [change(reference) for reference in references]
        for ours, theirs in ((twins, references), (references, twins)):
            scores = corpus_scores(ours, theirs)
            assert (scores.bleu, scores.chrf) == pytest.approx((100, 100))
            assert scores.exact_match == 100


def test_words_of_another_language_can_be_counted():
    theirs = NO_SPACES["zh"][1]
    ours = theirs.replace("书", "报")
    assert 50 < word_bleu([ours], [theirs]) < 100  # character by character
    ours, theirs = "C'est l'homme qui dort ici.", "C'est l'enfant qui dort ici."
    scores = {x: word_bleu([ours], [theirs], language=x) for x in ("en", "fr", "xq")}
    assert (
        0 < scores["en"] != scores["fr"] < 100
    )  # l', not l'homme, is a word in French
    assert 0 < scores["xq"] < 100  # no such rules: those of no language


def test_unequal_lists_name_both_numbers():
    with pytest.raises(InputError, match=r"2 translations .* 4 references"):
        corpus_scores(REFERENCES[:2], REFERENCES)


def test_an_empty_list_has_no_score():
    with pytest.raises(InputError, match="no translations"):
        corpus_scores([], [])


LABELS = torch.tensor([[5, 6, 7, PAD], [8, PAD, PAD, PAD]])


def test_token_accuracy_by_hand():
    predictions = torch.tensor([[5, 6, 9, 9], [9, PAD, PAD, PAD]])
    assert token_accuracy(predictions, LABELS) == 50  # 2 of 4, padding left out


def test_padding_never_counts():
    predictions = LABELS.where(LABELS != PAD, torch.tensor(9))
    assert token_accuracy(predictions, LABELS) == 100


def test_logits_count_like_the_ids_they_favor():
    logits = torch.randn(2, 4, 11, generator=torch.Generator().manual_seed(3))
    logits[0, 1, 6] = 9.0
    assert token_accuracy(logits, LABELS) == token_accuracy(logits.argmax(-1), LABELS)
    assert token_accuracy(logits, LABELS) >= 25


def test_shapes_must_fit():
    with pytest.raises(InputError, match=r"\(2, 3\) do not fit .* \(2, 4\)"):
        token_accuracy(LABELS[:, :3], LABELS)


def test_padding_alone_has_no_accuracy():
    with pytest.raises(InputError, match="all labels are padding"):
        token_accuracy(torch.zeros(2, 3, dtype=torch.long), torch.full((2, 3), PAD))
