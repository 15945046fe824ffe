"""The exercises: right answers in any style pass, wrong ones read their mistake."""

from importlib import import_module
from pathlib import Path

import pytest

from annotated_transformer import checks
from annotated_transformer.checks import common

FILES = sorted((Path(__file__).parent / "exercises").glob("chapter_*.py"))
CHAPTERS = [import_module(f"tests.exercises.{path.stem}") for path in FILES]


def rows(name):
    """Each row of these tables, with a name of its own."""
    return [
        pytest.param(*row, id=f"{row[0]}-{i}")
        for chapter in CHAPTERS
        for i, row in enumerate(getattr(chapter, name))
    ]


def ask(name, answer):
    answers = answer if isinstance(answer, tuple) else (answer,)
    return getattr(checks, name)(*answers)


# Chapter 00 asks for words, and tells more than "correct".
WORDS = {
    "check_guess": ("right: ", "surprise: "),
    "check_swap": "correct: ",
    "check_senses": "it says ",
}


@pytest.mark.parametrize(("name", "answer"), rows("RIGHT"))
def test_a_right_answer_is_correct(name, answer):
    found = ask(name, answer)
    assert found.startswith(WORDS[name]) if name in WORDS else found == "correct"


@pytest.mark.parametrize(("name", "answer", "words"), rows("WRONG"))
def test_a_wrong_answer_reads_its_mistake(monkeypatch, name, answer, words):
    monkeypatch.setattr(common, "SECONDS", 2)
    found = ask(name, answer)
    assert words in found
    assert len(found) < 250 and "\n" not in found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_check_has_a_right_answer_and_two_wrong_ones(path):
    module = import_module(f"annotated_transformer.checks.exercises.{path.stem}")
    chapter = import_module(f"tests.exercises.{path.stem}")
    for name in module.__all__:
        assert any(row[0] == name for row in chapter.RIGHT), name
        assert sum(row[0] == name for row in chapter.WRONG) >= 2, name


def test_every_chapter_with_exercises_has_its_answers():
    folder = Path(checks.__file__).parent / "exercises"
    chapters = {path.stem for path in folder.glob("chapter_*.py")}
    assert {path.stem for path in FILES} == chapters
