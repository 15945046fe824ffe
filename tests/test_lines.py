"""Lines: every sentence of a line is translated, and no line costs another its own."""

import pytest

from annotated_transformer.corpora import sample_captions
from annotated_transformer.decoding import greedy_search
from annotated_transformer.lines import is_unfamiliar, joined, translate_lines
from annotated_transformer.translator import Translator

CAPTIONS = [german for german, _ in sample_captions()["captions"]]


@pytest.fixture(scope="module")
def translator() -> Translator:
    return Translator.pretrained()


def test_each_sentence_of_a_line_is_translated_as_if_alone(translator):
    parts = ["Ein Mann schläft.", "Eine Frau kocht.", "Drei Kinder spielen im Garten."]
    alone = translator.translate(parts)
    (line,) = translate_lines(translator, [" ".join(parts)])
    assert line.translation == " ".join(alone) and line.translation.count(".") == 3
    (whole,) = translate_lines(translator, [" ".join(parts)], split=False)
    assert whole.translation == translator.translate([" ".join(parts)])[0]


def test_a_caption_is_translated_as_ever(translator):
    texts = [*CAPTIONS[:20], "", " ", "\ufeff", "\u2581"]
    lines = translate_lines(translator, texts, search=greedy_search)
    expected = translator.translate(texts, search=greedy_search)
    assert [line.translation for line in lines] == expected
    assert [line.source for line in lines] == texts
    assert expected[-4:] == [""] * 4  # what shows nothing stays blank


def test_a_sentence_too_long_costs_no_other_line_its_translation(translator):
    texts = [CAPTIONS[0], "Hund " * 3_000, CAPTIONS[1], f"Ja. {'Hund ' * 3_000}"]
    lines = translate_lines(translator, texts, search=greedy_search)
    assert [bool(line.translation) for line in lines] == [True, False, True, False]
    assert [bool(line.error) for line in lines] == [False, True, False, True]
    assert "3,001 tokens" in str(lines[1].error) and "1,024" in str(lines[1].error)


def test_a_long_line_of_short_sentences_is_no_long_sentence(translator):
    (line,) = translate_lines(
        translator, ["Ein Hund läuft. " * 300], search=greedy_search
    )
    assert line.error is None and line.translation.count(".") == 300


def test_sentences_are_joined_as_their_language_does():
    assert joined(["A dog.", "", "A cat."]) == "A dog. A cat."
    assert joined(["一只狗。", "一只猫。"]) == "一只狗。一只猫。"
    assert joined([]) == joined([""]) == ""


@pytest.mark.parametrize(
    "text",
    ["EIN HUND LÄUFT.", "HUND", "Собака бежит.", "一只狗在跑。", "كلب ينام في الحديقة"],
)
def test_capitals_and_other_scripts_are_unfamiliar(translator, text):
    assert is_unfamiliar(translator, text)


@pytest.mark.parametrize("text", ["", "...", "USA", "Ein Hund 🐕.", "DJs im Haus."])
def test_a_word_in_capitals_or_one_odd_character_is_not(translator, text):
    assert not is_unfamiliar(translator, text)
    assert not any(is_unfamiliar(translator, caption) for caption in CAPTIONS)
