"""The classroom from end to end, by the commands that `book/teach.md` gives."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from copy import deepcopy
from html import unescape
from importlib import import_module
from pathlib import Path

import attacks
import nbformat
import pytest
from nbgrader.api import Gradebook
from nbgrader.plugins import FileNameCollectorPlugin
from traitlets.config import PyFileConfigLoader

from annotated_transformer.checks.classroom import LIMIT
from tools import syllabus
from tools.wrong_answers import ROOT, SOURCES, problems, settings

PAGE = (ROOT / "book" / "teach.md").read_text("utf-8")
(SOURCE,) = (path for path in SOURCES if path.stem == "ps1_model")
SOLUTIONS = {p.name: p.solution for path in SOURCES for p in problems(path)}

# Lines that a problem's own code shows for another purpose: one trains, one has a bug.
SHARED = {
    "optimizer.zero_grad()",
    "optimizer.step()",
    "scores = query @ key.mT / math.sqrt(query.size(-1))",
}

# What ten students hand in, as changes of the perfect answers, and what they get.
UNSCALED = SOLUTIONS["attention"].replace(" / math.sqrt(query.size(-1))", "")
BESSEL = SOLUTIONS["norm"].replace("correction=0", "correction=1")
LOOP = (
    "def repaired_attention(query, key, value, mask):\n    while True:\n        pass\n"
)
MISCHIEF = """
import ctypes, mmap, os, shutil

for harm in (
    lambda: os.remove(f"{COURSE}/submitted/perfect/ps1_model/ps1_model.ipynb"),
    lambda: shutil.rmtree(f"{COURSE}/submitted"),
    lambda: Path(f"{COURSE}/source/ps1_model/ps1_model.ipynb").write_text(""),
    lambda: mmap.mmap(-1, 6_000_000_000),  # shared memory
):
    try:
        harm()
    except OSError as error:
        print("refused:", error)
os.remove("ps1_model.ipynb")  # its own copy: allowed
# A trap for whoever writes the notebook that was run; ctypes, so that no hook sees it.
ctypes.CDLL(None).symlink(f"{COURSE}/gradebook.db".encode(), b"ps1_model.ipynb")
print("met:", json.dumps(run(COURSE, 9)))
"""
ATTACKS = Path(attacks.__file__).read_text("utf-8").partition("\nif __name__")[0]
STUDENTS = {
    "perfect": ({}, 48),
    "partial": ({"attention": UNSCALED, "norm": BESSEL, "heads": "..."}, 33),
    "empty": (None, 0),
    "hanging": ({"masks": "while True:\n    pass", "bug_leak": LOOP}, 34),
    "printing": ({"masks": SOLUTIONS["masks"] + '\nprint("x" * 10**9)\n'}, 48),
    "attacking": ({"masks": ATTACKS + MISCHIEF}, 42),
    "crashing": ({"heads": "import os\n\nos._exit(1)"}, 0),
    "failing": ({"masks": "def padding_mask(ids:"}, 42),
    "copying": ({}, 48),
    "stripped": ({}, 48),
}
# Who is hasty hands in the first wrong answer to each problem.
FIRST_WRONG = {
    problem.name: wrongs[problem.name][0]
    for path in SOURCES
    for wrongs in [import_module(f"tests.wrong_answers.{path.stem}").WRONG]
    for problem in problems(path)
}
HASTY = {name: wrong.code(SOLUTIONS[name]) for name, wrong in FIRST_WRONG.items()}


def commands(title):
    """The lines that a section of the page tells a teacher to type."""
    section = PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    lines = "".join(blocks).splitlines()
    return [line for line in lines if line.startswith("nbgrader ")]


def answered(course, assignment, changes):
    """The released notebook, with the right answers in it but for these changes."""
    path = course / "release" / assignment / f"{assignment}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        name = settings(cell).get("grade_id")
        if changes is not None and settings(cell).get("solution"):
            cell.source = {**SOLUTIONS, **changes}.get(name, "My numbers say so.")
    return notebook


def copy_and_split(notebook):
    """Copy one answer, and split another in the middle of its function."""
    at = {settings(c).get("grade_id"): i for i, c in enumerate(notebook.cells)}
    norm = notebook.cells[at["norm"]]
    rest, copy = deepcopy(norm), deepcopy(notebook.cells[at["masks"]])
    rest.id, copy.id = "rest", "copy"
    norm.source, _, rest.source = norm.source.partition("\n")
    notebook.cells.insert(at["norm"] + 1, rest)
    notebook.cells.insert(at["masks"] + 1, copy)


def hand_in(course, student, changes):
    """What a student sends of the first problem set, named as the page says."""
    if changes:
        named = f"COURSE = {str(course)!r}\n"
        changes = {k: named + v if "COURSE" in v else v for k, v in changes.items()}
    notebook = answered(course, "ps1_model", changes)
    if student == "copying":
        copy_and_split(notebook)
    if student == "stripped":
        for cell in notebook.cells:
            cell.metadata.clear()
    folder = course / "downloaded" / "ps1_model" / "archive"
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, folder / f"{student}_ps1_model.ipynb")


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A course in which everything that the page says has been typed, in its order."""
    folder = tmp_path_factory.mktemp("course")
    shutil.copytree(ROOT / "assignments" / "source", folder / "source")
    config = (ROOT / "assignments" / "nbgrader_config.py").read_text("utf-8")
    config = config.replace("c.Execute.timeout = 60", "c.Execute.timeout = 12")
    (folder / "nbgrader_config.py").write_text(config)
    environment = dict(os.environ)
    environment["PATH"] = (
        f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR"):
        environment[name] = str(folder / name)

    def run(command):
        return subprocess.run(
            command.split(),
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=540,
        )

    said = {}
    for command in commands("One assignment, from release to grades"):
        if "zip_collect" in command:
            for student, (changes, _) in STUDENTS.items():
                hand_in(folder, student, changes)
        done = run(command)
        said[command.split()[1]] = done.stdout + done.stderr
        # One submission killed its kernel: nbgrader says so, and goes on.
        failed = "autograde" in command
        assert done.returncode == failed, said[command.split()[1]][-3000:]
    for path in SOURCES:  # of the others, two students
        if path != SOURCE:
            assert run(f"nbgrader generate_assignment {path.stem}").returncode == 0
            for student, changes in (("perfect", {}), ("hasty", HASTY)):
                place = folder / "submitted" / student / path.stem
                place.mkdir(parents=True)
                nbformat.write(answered(folder, path.stem, changes), place / path.name)
            for step in ("autograde", "generate_feedback"):
                assert run(f"nbgrader {step} {path.stem}").returncode == 0
    return folder, said


def test_the_page_has_all_commands_of_one_assignment():
    steps = [c.split()[1] for c in commands("One assignment, from release to grades")]
    assert steps == [
        *("generate_assignment", "zip_collect", "autograde"),
        *("generate_feedback", "export"),
    ]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_a_release_holds_neither_solutions_nor_hidden_tests(course, path):
    folder, _ = course
    text = (folder / "release" / path.stem / path.name).read_text("utf-8")
    assert "# your code" in text
    assert text.count("grade(check_") >= 12
    for hidden in ("SOLUTION", "HIDDEN", "seed=", "fresh=True"):
        assert hidden not in text
    given = {line for c in nbformat.reads(text, 4).cells for line in lines_of(c.source)}
    for problem in problems(path):
        inside = re.findall(
            r"### BEGIN SOLUTION\n(.*?)### END", problem.solution, re.DOTALL
        )
        assert inside
        if not problem.name.startswith("bug_"):  # these give most of the code
            assert not given & set(lines_of("".join(inside))) - SHARED


def lines_of(source):
    """The lines that say something, without their indentation."""
    return [line.strip() for line in source.splitlines() if len(line.strip()) > 12]


def test_each_student_gets_what_the_answers_deserve(course):
    folder, _ = course
    with open(folder / "grades.csv", encoding="utf-8") as file:
        grades = {
            row["student_id"]: float(row["score"]) for row in csv.DictReader(file)
        }
    assert grades == {name: points for name, (_, points) in STUDENTS.items()}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_the_perfect_answers_get_all_points_of_all_sets(course, path):
    folder, _ = course
    with Gradebook(f"sqlite:///{folder / 'gradebook.db'}") as gradebook:
        got = gradebook.find_submission(path.stem, "perfect")
        by_tests = sum(problem.points for problem in problems(path))
        # What is missing is the reading, which waits for the teacher.
        assert (got.score, got.needs_manual_grade) == (
            by_tests,
            by_tests < got.max_score,
        )


OTHERS = [path for path in SOURCES if path != SOURCE]


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: path.stem)
def test_who_is_hasty_gets_what_each_mistake_deserves_and_reads_its_cause(course, path):
    folder, _ = course
    with Gradebook(f"sqlite:///{folder / 'gradebook.db'}") as gradebook:
        got = gradebook.find_submission(path.stem, "hasty").score
    page = folder / f"feedback/hasty/{path.stem}/{path.stem}.html"
    text = unescape(page.read_text("utf-8"))
    first = [FIRST_WRONG[problem.name] for problem in problems(path)]
    assert got == sum(wrong.points for wrong in first)
    assert [wrong.says for wrong in first if wrong.says not in text] == []


def test_files_are_sorted_by_all_of_the_students_name():
    config = PyFileConfigLoader(str(ROOT / "assignments/nbgrader_config.py"))
    collector = FileNameCollectorPlugin(config=config.load_config())
    for student in ("ada", "grace-hopper", "m.curie", "ada_l", "2026_17", "Zoë K"):
        found = collector.collect(f"downloaded/ps1_model/{student}_ps1_model.ipynb")
        assert found["student_id"] == student
        assert found["file_id"].startswith("ps1_model")


def page_of(folder, student):
    return (folder / f"feedback/{student}/ps1_model/ps1_model.html").read_text("utf-8")


def test_feedback_names_the_mistake(course):
    folder, _ = course
    partial = page_of(folder, "partial")
    assert "did you forget to divide by the root of d_k?" in partial
    assert "Bessel" in partial
    assert "not done yet" in page_of(folder, "empty")
    assert "Not yet:" not in page_of(folder, "perfect")
    assert "Test <code>attention_average</code></a> (Score: 0.0 / 3.0)" in partial


def test_feedback_loads_nothing_from_the_network(course):
    folder, _ = course
    for path in folder.glob("feedback/*/*/*.html"):
        text = path.read_text("utf-8")
        assert not re.search(r"<(?:script|img|iframe)[^>]*\ssrc=.https?:", text)
        assert not re.search(r"<link[^>]*href=.https?:", text)


def test_a_submission_that_hangs_is_stopped(course):
    folder, said = course
    page = page_of(folder, "hanging")
    assert "Interrupting kernel" in said["autograde"]
    assert "KeyboardInterrupt" in page or "CellTimeoutError" in page
    assert "no answer after 10 seconds: does your loop end?" in page


def test_a_submission_that_prints_a_gigabyte_is_cut(course):
    folder, _ = course
    path = folder / "autograded/printing/ps1_model/ps1_model.ipynb"
    assert path.stat().st_size < 2 * LIMIT
    assert f"a cell may print {LIMIT:,} characters" in page_of(folder, "printing")


def test_a_submission_that_attacks_the_course_harms_nobody(course):
    folder, _ = course
    for student in STUDENTS:
        assert (folder / f"submitted/{student}/ps1_model/ps1_model.ipynb").exists()
    assert (folder / "source/ps1_model/ps1_model.ipynb").stat().st_size > 1000
    path = folder / "autograded/attacking/ps1_model/ps1_model.ipynb"
    assert not path.is_symlink()
    (cell,) = (c for c in nbformat.read(path, 4).cells if "ctypes, mmap" in c.source)
    printed = "".join(output.get("text", "") for output in cell.outputs)
    assert printed.count("refused: ") == MISCHIEF.count("lambda")
    met = json.loads(printed.partition("met: ")[2])
    assert [name for name, error in met.items() if error == "done"] == []
    assert not list(folder.glob("submitted/*/*/[a-e].*"))


def test_copied_split_and_unlabeled_cells_are_mended_and_said(course):
    folder, said = course
    page = page_of(folder, "copying")
    assert "Repaired before grading" in page
    assert "Copies of the cell <code>masks</code> were dropped" in page
    assert "Your answer <code>norm</code> stood in 2 cells" in page
    assert "came without the labels of these cells" in page_of(folder, "stripped")
    assert "Repaired before grading" not in page_of(folder, "perfect")
    assert "Repaired: Copies of the cell `masks`" in said["autograde"]


def test_a_submission_that_kills_its_kernel_is_named(course):
    _, said = course
    assert (
        "error processing assignment 'ps1_model' for student 'crashing'"
        in (said["autograde"])
    )


def test_the_tables_of_the_page_are_those_of_the_chapters_and_problems():
    assert syllabus.written(PAGE) == PAGE, "run `make sync`"
    assert syllabus.minutes("about 45 minutes; the exercises take 50 more. Or 25") == (
        45,
        50,
    )
    assert syllabus.minutes("about an hour; exercises: half an hour more") == (60, 30)
    with pytest.raises(ValueError, match="no minutes"):
        syllabus.minutes("not long")


def test_every_chapter_and_problem_set_has_its_week_in_each_plan():
    sets = [path.stem for path in SOURCES]
    for name, plan in syllabus.PLANS.items():
        whole = name == "12 weeks"  # the others end with Part III
        assert [due for _, due in plan if due] == (sets if whole else sets[:3])
        planned = [n for numbers, _ in plan for n in numbers]
        assert planned == list(range(23 if whole else 18))


def test_every_check_can_be_imported_from_the_package():
    from annotated_transformer import checks

    used = set()
    for path in SOURCES:
        used |= set(re.findall(r"import (check_\w+), grade", path.read_text("utf-8")))
    assert used <= set(checks.__all__)
    assert len(used) > 16
