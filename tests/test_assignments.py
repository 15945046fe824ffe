"""The assignments: right answers get all points, wrong ones what they deserve."""

import re
from collections import Counter
from functools import cache

import nbformat
import pytest
from nbgrader.preprocessors import ClearSolutions
from traitlets.config import PyFileConfigLoader

from tests.right_answers import RIGHT
from tools.wrong_answers import (
    ROOT,
    SOURCES,
    graded,
    in_a_cell,
    marks,
    problems,
    settings,
)

PROBLEMS = [problem for path in SOURCES for problem in problems(path)]
by_problem = pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: p.name)
by_source = pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
TABLE = (ROOT / "assignments" / "wrong_answers.md").read_text("utf-8")


@cache
def results(name):
    (problem,) = (p for p in PROBLEMS if p.name == name)
    return graded(problem)


def cleared(path):
    """The notebook as students get it, but with the hidden tests still in it."""
    config = PyFileConfigLoader(str(ROOT / "assignments/nbgrader_config.py"))
    notebook = nbformat.read(path, as_version=4)
    resources = {"nbgrader": {"notebook": path.stem}}
    return ClearSolutions(config=config.load_config()).preprocess(notebook, resources)[
        0
    ]


def test_four_problem_sets_have_twenty_one_problems():
    assert len(SOURCES) == 4
    assert len(PROBLEMS) == 21
    assert len({p.name for p in PROBLEMS}) == 21


@by_problem
def test_the_solution_gets_full_marks(problem):
    got = marks(problem, problem.solution)
    assert (got.points, got.feedback) == (problem.points, "")


def test_every_problem_has_a_right_answer_in_another_style():
    assert {name for name, *_ in RIGHT} == {p.name for p in PROBLEMS}


@pytest.mark.parametrize(("name", "style", "answer"), RIGHT)
def test_a_right_answer_in_another_style_gets_full_marks(name, style, answer):
    (problem,) = (p for p in PROBLEMS if p.name == name)
    got = marks(problem, answer)
    assert (got.points, got.feedback) == (problem.points, ""), style


@by_problem
def test_what_students_start_from_gets_no_points_and_no_traceback(problem):
    path = ROOT / f"assignments/source/{problem.assignment}/{problem.assignment}.ipynb"
    (stub,) = (
        cell.source
        for cell in cleared(path).cells
        if settings(cell).get("grade_id") == problem.name
    )
    assert "SOLUTION" not in stub
    got = marks(problem, stub)
    assert got.points == 0
    assert got.feedback.startswith("not done yet")


@by_problem
def test_each_wrong_answer_gets_what_it_deserves_and_reads_its_cause(problem):
    rows = results(problem.name)
    assert len(rows) >= 6
    assert len({wrong.what for wrong, _ in rows}) == len(rows)
    for wrong, got in rows:
        assert (got.points, wrong.what) == (wrong.points, wrong.what)
        assert got.points < problem.points
        assert wrong.says in got.feedback, f"{wrong.what}: {got.feedback}"


def test_each_set_has_at_least_thirty_wrong_answers_that_are_caught():
    counts = Counter()
    for problem in PROBLEMS:
        counts[problem.assignment] += len(results(problem.name))
    assert min(counts.values()) >= 30


def test_no_bar_in_the_words_breaks_a_row_of_the_table():
    rows = [line for line in TABLE.splitlines() if line.startswith("|")]
    assert [row for row in rows if len(re.findall(r"(?<!\\)\|", row)) != 4] == []
    assert "'_'" not in TABLE  # two of them would set the words between in italics


@by_problem
def test_the_table_of_wrong_answers_is_what_its_command_prints(problem):
    section = TABLE.partition(f"## {problem.title}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.*?) \| (\d+) of (\d+) \|", section, re.MULTILINE)
    # Not the words: they hold numbers, which may differ in a last digit elsewhere.
    assert rows == [
        (in_a_cell(wrong.what), str(got.points), str(problem.points))
        for wrong, got in results(problem.name)
    ]


@by_source
def test_a_source_is_stored_as_jupyter_stores_it_and_never_ran(path):
    content = nbformat.read(path, as_version=4)
    nbformat.validate(content)
    assert path.read_text("utf-8") == nbformat.writes(content) + "\n"
    for cell in content.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@by_source
def test_each_test_cell_says_what_is_wrong_and_has_hidden_tests(path):
    for cell in nbformat.read(path, as_version=4).cells:
        if settings(cell).get("grade") and cell.cell_type == "code":
            visible, _, hidden = cell.source.partition("### BEGIN HIDDEN TESTS")
            assert "grade(check_" in visible
            # Imported here again, so that an answer cannot put its own in their place.
            assert re.match(
                r"from annotated_transformer.checks import \w+, grade", visible
            )
            assert re.search(r"grade\(check_.*fresh=True\)", hidden, re.DOTALL)
            assert cell.metadata.nbgrader["locked"]


@by_source
def test_headers_say_the_points_and_minutes_of_what_is_below(path):
    cells = nbformat.read(path, as_version=4).cells
    stated, minutes, found, parts = [], 0, [], []
    for cell in cells:
        head = re.match(
            r"## Problem \d\.\d .+\n\n"
            r"\*(easy|medium|hard) · (\d+) minutes · (\d+) points",
            cell.source,
        )
        if cell.source.startswith("## Problem"):
            assert head, cell.source[:80]
            stated.append(int(head[3]))
            minutes += int(head[2])
            found.append(0)
            split = re.search(r" \(([\d +]+)\)", cell.source)
            parts.append([int(n) for n in split[1].split(" + ")])
        if settings(cell).get("grade"):
            found[-1] += settings(cell)["points"]
            if cell.cell_type == "code":  # the bracket: one number for each test cell
                assert settings(cell)["points"] == parts[-1].pop(0)
    assert found == stated
    assert not any(parts)
    assert f"| **Minutes** | {minutes}," in cells[0].source
    assert f"| **Points** | {sum(stated)}" in cells[0].source
