"""Text: what looks the same is the same, whichever program wrote it."""

import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotated_transformer.text import (
    look_alike,
    normalize,
    sentences,
    unspaced_language,
)
from annotated_transformer.tokenizers import split_words

any_text = st.text(st.characters(codec="utf-8"))
few = settings(max_examples=200, deadline=None, derandomize=True)


@few
@given(text=any_text)
def test_normalizing_twice_changes_nothing_more(text):
    once = normalize(text)
    assert normalize(once) == once
    assert once.split() == once.split(" ") or not once


@few
@given(text=any_text)
def test_either_form_of_accents_gives_the_same_text(text):
    forms = [unicodedata.normalize(form, text) for form in ("NFC", "NFD")]
    assert normalize(forms[0]) == normalize(forms[1]) == normalize(text)


@pytest.mark.parametrize(
    "twin",
    [
        "Zwei  Hüte.",
        " Zwei Hüte.\r",
        "Zwei\u00a0Hüte.",  # no-break
        "Zwei\u202fHüte.",  # narrow no-break
        "Zwei\u3000Hüte.",  # ideographic
        "Zwei\u2028\u2029Hüte.",
        "\ufeffZwei Hüte.",  # a byte-order mark that a joined file left inside
        "Zwei \u200bHü\u00adte.\u2060",  # zero-width space, soft hyphen, word joiner
        "\u200eZwei Hu\u0308te.\u202c",
        "Zwei Hu\u200b\u0308te.",
    ],
)
def test_what_looks_the_same_becomes_the_same(twin):
    assert normalize(twin) == "Zwei Hüte."


@pytest.mark.parametrize(
    "text", ["👩\u200d🌾", "می\u200cخواهم", "❤\ufe0f", "½ x² ﬁ ＡＢ"]
)
def test_what_changes_the_meaning_or_the_look_is_kept(text):
    assert normalize(text) == text


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Ein Hund", "EIN HUND"),
        ("ﬁnden", "finden"),
        ("ＡＢ１", "ab1"),
        ("Straße", "STRASSE"),
        ("warten…", "warten..."),
        ("ｶﾞ", "ガ"),
    ],
)
def test_look_alikes_are_recognized(one, other):
    assert look_alike(one) == look_alike(other)
    assert look_alike(one) != look_alike(one + "n")


CUT = [  # the sentences of a line, in German unless said
    ["Ein Mann schläft.", "Eine Frau kocht.", "Drei Kinder spielen im Garten."],
    ["Was?!", "Wirklich?", "Ja!", "Gut."],
    ["„Komm!“, sagt er.", "„Nein.“", "Sie geht."],
    ['Er sagt: "Nein."', "Sie geht.", '"Ja!", ruft er.'],
    ["»Nein.«", "Sie geht.", "»Ja«, sagt er."],
    ["(Ein Mann schläft.)", "Eine Frau kocht."],
    ["ein mann schläft.", "eine frau kocht."],
    ["EIN MANN SCHLÄFT.", "EINE FRAU KOCHT."],
    ["Dr. Müller kommt.", "J. S. Bach singt."],
    ["Собака бежит.", "Кошка спит."],
    ["كلب يركض.", "هل ينام؟", "نعم."],
    ["वह सोता है।", "वह खाता है।"],
]
WHOLE = [
    "Ein Hund, z. B. ein Pudel, schläft am 3. Mai im Haus.",
    "Am 3. 10. 2020, d. h. im 21. Jahrhundert, lief der 1. FC Köln.",
    "Ludwig XIV. König von Frankreich, u. a. mit Hrn. Dr. med. Meier",
    "Sie wartet ... Dann … und geht... Immer weiter",
    "Vgl. Abb. 3. Abs. 2, ca. 3 Mio. Euro, Min. Wert, bzw. Nr. 5 usw.",
    "Er ruft: „Hilfe!“ und rennt.",
    "Es ist 3.5 m lang, kostet 1.200,50 Euro und steht auf www.hund.de um 10.30 Uhr.",
    "Die U.S.A. und St. Pauli, Tel. 5",
    "Ein Hund",
    "Ein Hund .",
    ". Ein Hund",
    "...",
    "? ! ?",
    "",
]


@pytest.mark.parametrize("parts", CUT)
def test_sentences_are_told_apart(parts):
    assert sentences(" ".join(parts)) == parts
    assert sentences("\n".join(parts) + "\r") == parts


@pytest.mark.parametrize("text", WHOLE)
def test_abbreviations_ordinals_and_ellipses_are_not_cut(text):
    assert sentences(text) == [text]


@pytest.mark.parametrize(
    ("language", "parts"),
    [
        ("en", ["Mr. Smith, e.g., sleeps.", "Mrs. Jones cooks at 5 p.m. today."]),
        ("fr", ["Un homme dort.", "Une femme cuisine.", "« Non. »"]),
        ("klingon", ["Ein Mann schläft.", "Eine Frau kocht."]),  # no such rules
    ],
)
def test_other_languages_have_their_own_rules(language, parts):
    assert sentences(" ".join(parts), language) == parts


@pytest.mark.parametrize("language", ["de", "zh", "ja"])
def test_scripts_without_spaces_are_cut_at_their_own_stops(language):
    assert sentences("你好。他说：“好。”她3.5米！", language) == [
        "你好。",
        "他说：“好。”",
        "她3.5米！",
    ]
    assert sentences("犬が走る。猫が寝る。", language) == ["犬が走る。", "猫が寝る。"]


def test_a_long_line_without_spaces_is_cut():
    assert len(sentences("一只狗在沙滩上跑。" * 100)) == 100
    endless = f"{'x' * 20_000}. Ja. {'y' * 20_000}."
    assert sentences(endless) == [endless]  # spaCy would take minutes


@few
@given(text=any_text, language=st.sampled_from(["de", "en", "zh"]))
def test_cutting_loses_nothing(text, language):
    parts = sentences(text, language)
    assert "".join(parts).replace(" ", "") == normalize(text).replace(" ", "")
    assert all(parts) or parts == [""]


def test_a_plain_sentence_does_not_wait_for_spacy():
    program = (
        "import sys; from annotated_transformer.text import sentences;"
        "sentences('Ein Hund läuft am Strand.'); sys.exit('spacy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


@pytest.mark.parametrize(
    ("texts", "language"),
    [
        (["一只狗。", "A dog."], "zh"),
        (["犬が走る。"], "ja"),
        (["สุนัขวิ่ง"], "th"),
        (["A dog is a 狗."], None),
        (["개가 달린다."], None),
        (["..."], None),
        ([], None),
    ],
)
def test_languages_without_spaces_are_known_by_their_letters(texts, language):
    assert unspaced_language(texts) == language


def test_an_endless_word_takes_no_time():
    text = "ein Hund. " + "[" * 20_000 + ". Noch ein Satz."
    assert sentences(text) == [text]
    assert split_words("a " + "[" * 20_000, "de") == ["a", "[" * 20_000]
