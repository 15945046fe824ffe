"""Text: what looks the same is the same, whichever program wrote it."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotated_transformer.text import look_alike, normalize

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
