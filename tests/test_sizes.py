"""A core chapter can be finished, and its frame says what that takes."""

import json

import pytest
from trees import small_course

from tools import lanes, sizes, sync

CELLS, WORDS, MINUTES, SECONDS = 50, 2_800, 35, 40  # at most, in the core lane


def is_too_long(path):
    s = sizes.size(json.loads(path.read_text("utf-8")))
    limits = s.cells <= CELLS, s.words <= WORDS, s.minutes <= MINUTES
    return not all(limits) or (s.seconds or 0) > SECONDS


@pytest.mark.parametrize("path", lanes.core(), ids=lanes.name)
def test_a_core_chapter_keeps_to_its_size(path):
    assert not is_too_long(path)


def test_the_paper_in_one_sitting_is_short_enough_for_one():
    (path,) = lanes.of_kind("sitting")
    s = sizes.size(json.loads(path.read_text("utf-8")))
    assert (s.cells <= 60, s.words <= 4_500, s.seconds <= 60) == (True,) * 3


@pytest.mark.parametrize("path", lanes.deeper(), ids=lanes.name)
def test_a_deeper_notebook_runs_in_a_minute(path):
    assert sizes.size(json.loads(path.read_text("utf-8"))).seconds <= 60


def markdown(source):
    return {"cell_type": "markdown", "metadata": {}, "source": source}


def code(source, *tags):
    return {
        **{"cell_type": "code", "execution_count": None, "outputs": []},
        **{"metadata": {"tags": list(tags)}, "source": source},
    }


FRAME = "# 02 Toy\n\n| **Read** | ? |\n| **Run** | a day |"


def notebook(*cells, **metadata):
    return {"cells": [markdown(FRAME), *cells], "metadata": metadata}


def test_words_lines_and_cells_are_counted_as_the_rule_says():
    plain = sizes.size(notebook())
    size = sizes.size(
        notebook(
            markdown("Four [more words](a/long/link.html), $x + y$ <br> here."),
            markdown(
                "### Exercise 1 ★ Dropout (10 minutes)\n\n### Your turn (5 minutes)"
            ),
            code("a = 1\n\nb = 2"),
            code("plot()\nplot()", "hide-input"),
            code("install()", "colab"),
            markdown("## Solutions"),
            markdown("many words"),
            code("x = 1", "solution"),
        )
    )
    assert size.words - plain.words == 6 + 14
    assert (size.cells, size.lines, size.exercises) == (2, 2, 15)


def test_minutes_count_two_hundred_words_and_ten_lines():
    assert sizes.Size(2_000, 9, 150, 0, None).minutes == 25
    assert sizes.Size(2_001, 9, 150, 0, None).minutes == 26


def test_the_frame_says_what_was_computed():
    size = sizes.Size(2_000, 9, 150, 20, 31)
    assert sizes.with_minutes(FRAME, size) == (
        "# 02 Toy\n\n| **Read** | about 25 minutes; the exercises take 20 more |\n"
        "| **Run** | about 40 seconds on a laptop |"
    )
    never_run = sizes.Size(2_000, 9, 150, 0, None)
    assert "about 25 minutes |\n| **Run** | a day |" in sizes.with_minutes(
        FRAME, never_run
    )


def test_the_sync_command_writes_the_minutes(tmp_path):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "course"\n', "utf-8")
    (tmp_path / "README.md").write_text("# Course\n", "utf-8")
    path = tmp_path / "notebooks" / "02_toy.ipynb"
    path.write_text(json.dumps(notebook(code("a = 1"), seconds=3)), "utf-8")
    assert "the minutes" in " ".join(sync.sync(tmp_path, check=True))
    sync.sync(tmp_path, check=False)
    assert "about 10 seconds" in path.read_text("utf-8")
    assert sync.sync(tmp_path, check=True) == []


def test_minutes_that_their_own_words_change_are_right_at_once(tmp_path):
    small_course(tmp_path)
    path = tmp_path / "notebooks" / "04_toy.ipynb"
    for n in range(170, 200):  # words below the frame, around a full minute
        exercise = markdown("### Exercise 1 (10 minutes)\n\n" + "word " * n)
        path.write_text(json.dumps(notebook(exercise)), "utf-8")
        sync.sync(tmp_path, check=False)
        assert sync.sync(tmp_path, check=True) == [], n
