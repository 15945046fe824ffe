"""Chapters, what goes deeper, the paper in one sitting: each is found and fits in."""

import os
import subprocess
import sys

import nbformat
import pytest
from trees import (
    CHAPTER,
    DEEPER,
    GOES_ON,
    NOTEBOOKS,
    OTHER,
    SITTING,
    frame,
    small_course,
    write,
)

from tools import lanes, run_notebooks, syllabus


@pytest.fixture
def root(tmp_path):
    return small_course(tmp_path)


def names(paths):
    return [lanes.name(path) for path in paths]


def without(root, *gone):
    for name in gone:
        (root / "notebooks" / f"{name}.ipynb").unlink()


def test_nothing_is_wrong_with_the_notebooks_of_the_course():
    assert lanes.problems() == []
    assert len(lanes.core()) >= 18


def test_every_kind_is_found_and_any_may_be_missing(root):
    assert names(lanes.core(root)) == [CHAPTER, OTHER]
    assert names(lanes.deeper(root)) == [DEEPER]
    assert names(lanes.all_notebooks(root)) == [CHAPTER, OTHER, DEEPER, SITTING]
    assert lanes.problems(root) == []
    without(root, DEEPER, SITTING)
    assert names(lanes.all_notebooks(root)) == [CHAPTER, OTHER]
    assert lanes.problems(root) == []


def test_names_numbers_and_ways_follow_from_the_path(root):
    chapter, _, deeper, sitting = lanes.all_notebooks(root)
    assert [lanes.kind_of(p) for p in (chapter, deeper, sitting)] == list(lanes.KINDS)
    assert [lanes.number(p) for p in (chapter, deeper, sitting)] == ["04", "04", ""]
    assert [lanes.figure(p, 2) for p in (chapter, deeper, sitting)] == [
        *("4.2", "D4.2", "2"),
    ]
    for path in (chapter, deeper, sitting):
        assert (path.parent / lanes.root_from(path)).resolve() == root.resolve()


def test_a_fourth_kind_is_one_line(root, monkeypatch):
    path = write(root, "appendix_a", ["# A"])
    (found,) = lanes.problems(root)
    assert found.startswith("appendix_a.ipynb: no kind")
    monkeypatch.setitem(lanes.KINDS, "appendix", "appendix_[a-z].ipynb")
    assert lanes.problems(root) == []
    assert lanes.all_notebooks(root)[-1] == path


@pytest.mark.parametrize(
    ("name", "first", "complaint"),
    [
        ("deeper/06_lost", frame("06 Deeper: lost"), "no chapter has this file name"),
        (DEEPER, frame("04 Toy", goes_on=GOES_ON), "its title does not begin with"),
        (DEEPER, frame("04 Deeper: toy"), "its first cell lacks a line like"),
        (
            DEEPER,
            frame("04 Deeper: toy", goes_on=GOES_ON.replace("04_toy", "05_other")),
            "goes on from 05_other.ipynb, and not from its own chapter",
        ),
        (
            DEEPER,
            frame("04 Deeper: toy", goes_on=GOES_ON.replace("section 5", "section 7")),
            "goes on from section 7, which its chapter does not have",
        ),
    ],
)
def test_what_goes_deeper_says_from_where(root, name, first, complaint):
    write(root, name, [first])
    (found,) = lanes.problems(root)
    assert found.startswith(f"{name}.ipynb: ") and complaint in found


def test_the_line_may_stand_in_the_table_or_below_the_title(root):
    line = GOES_ON.replace("** |", "**").replace(" |", "").removeprefix("| ")
    assert line.startswith("**Goes on from** [04 Toy, section 5](../04_toy.ipynb)")
    write(root, DEEPER, [f"# 04 Deeper: toy\n\n{line}"])
    assert lanes.problems(root) == []


@pytest.mark.parametrize(
    ("cells", "complaint"),
    [
        ([frame("05 Other"), "%run deeper/04_toy.ipynb"], "its code uses a deeper"),
        (
            [frame("05 Other").replace("Nothing", "[x](deeper/04_toy.ipynb)")],
            "asks to know a deeper notebook first",
        ),
    ],
)
def test_no_chapter_needs_what_goes_deeper(root, cells, complaint):
    write(root, OTHER, cells)
    (found,) = lanes.problems(root)
    assert found.startswith("05_other.ipynb: ") and complaint in found
    write(root, OTHER, [frame("05 Other"), "1", "More in [x](deeper/04_toy.ipynb)."])
    assert lanes.problems(root) == []


def test_without_names_every_notebook_of_the_course_is_run(root, monkeypatch):
    monkeypatch.setattr(lanes.all_notebooks, "__defaults__", (root,))
    ran = []

    def run(path):
        ran.append(lanes.name(path))
        return nbformat.read(path, as_version=4)

    monkeypatch.setattr(run_notebooks, "run", run)
    monkeypatch.setattr(sys, "argv", ["run_notebooks"])
    assert run_notebooks.main() == 0
    assert ran == [CHAPTER, OTHER, DEEPER, SITTING]


def test_the_minutes_of_the_course_are_those_of_its_chapters(root, monkeypatch):
    monkeypatch.setattr(syllabus, "ROOT", root)
    assert syllabus.chapters() == {
        4: ("[04 Toy](../notebooks/04_toy.ipynb)", 20, 60),
        5: ("[05 Other](../notebooks/05_other.ipynb)", 20, 60),
    }


def test_nbval_collects_every_notebook_even_two_of_one_name(root):
    command = "-m pytest -q -p no:cacheprovider --nbval --collect-only notebooks"
    listed = subprocess.run(
        [sys.executable, *command.split()],
        cwd=root,
        env=os.environ | {"PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
    )
    assert listed.returncode == 0, listed.stdout + listed.stderr
    codes = {name: len(cells) // 2 for name, cells in NOTEBOOKS.items()}
    for name, code in codes.items():
        assert listed.stdout.count(f"notebooks/{name}.ipynb::") == code, name


def test_the_linter_knows_the_notebooks_of_every_folder(root):
    (root / "pyproject.toml").write_text(
        (lanes.ROOT / "pyproject.toml").read_text("utf-8"), "utf-8"
    )
    shape = 'from jaxtyping import Float\n\nx: Float[list, "batch"] = [1.0]'
    for name in (CHAPTER, DEEPER, SITTING):
        write(root, name, ["# 04", shape])
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "notebooks"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
