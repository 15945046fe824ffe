"""Chapter 00's counts of captions: shipped, and the same wherever they are printed."""

from annotated_transformer.files import read_json
from tools import lesson

SHIPPED = read_json(lesson.LESSON)


def stored():
    """The text of the outputs that the chapter stores."""
    outputs = [out for cell in lesson.counting_cells() for out in cell.outputs]
    return "".join(out.text for out in outputs)


def test_the_stored_tables_are_the_shipped_counts():
    assert lesson.rows(stored()) == SHIPPED
    assert SHIPPED["captions"] == 29_000
    assert "not on this machine" not in stored()


def test_without_the_corpus_the_same_tables_appear_and_say_whose_they_are(
    monkeypatch, tmp_path
):
    monkeypatch.setattr("annotated_transformer.corpora.multi30k_at_hand", bool)
    printed = lesson.run_cells()
    assert lesson.rows(printed) == SHIPPED
    assert printed.count("our counts") == len(lesson.counting_cells())


def test_the_shipped_counts_are_those_of_the_corpus(multi30k_folder):
    assert lesson.rows(lesson.run_cells()) == SHIPPED
